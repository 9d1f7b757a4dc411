"""Better int8: a float model repaired before it is rounded, and a search for what should not be rounded at all.

layers.py     the graph as layers, each with the weights and the bias that everything linear after it was folded into
equalize.py   channels of one tensor brought to one range, where that changes nothing else
rounding.py   weights to integers, each error made up for by the weights still to come
repair.py     the three of them, over real frames: a graph whose weights are exactly what int8 can hold
ranges.py     which range of an activation its 256 levels should span
tflite.py     candidates for the search, in the one format
onnx.py       and in the other
search.py     which candidate is the fastest that keeps the Keras model's labels
"""
