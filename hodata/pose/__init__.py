"""Poses and meshes to masks: cameras, a rasteriser that needs no GPU or display, and label maps with amodal masks.

    from hodata.pose.render import PosedMesh, render

Importing this package costs nothing; numba compiles on the first call of `render` and keeps the result on disk.
"""
