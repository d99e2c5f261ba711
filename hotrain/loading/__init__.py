"""From positions of a run to batches of crops: read, decode, cut, mix, degrade. The order itself is `hotrain.order`.

training_data makes a CropData (data) of a run's options; loader has processes fill batches with it.
"""
