"""What `hotrain.fit` is made of: which samples and what their masks teach, the start, one step, and the model's card.

selection -> open_labels -> step (augment, criterion: loss, dice, hard_pixels; optimizer, averaging)
"""
