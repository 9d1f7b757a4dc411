"""Looks through a model file before Keras opens it, without Keras: what could run code or fill the memory is refused.

scan.py    which kind of file it is, and what of it is to be looked at
config.py  a Keras configuration: every class, function and size that it names
graph.py   a SavedModel: every operator
hdf5.py    weights: links to other files, and absurd sizes
"""
