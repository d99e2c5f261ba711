"""A model at work on new recordings: frames in, masks for people and for the next tools out. Nothing imports torch.

inputs -> pipeline (decode, network, decide, components, statistics) -> formats, state -> frames.jsonl, review
"""
