"""From a Keras model to one frozen graph, in a child process: what the model does there stays there.

model.py         the parent's side: load_model; and what passes between it and the child
isolation.py     the child process, its memory limit, and how it ends
child.py         the child's side: looks the file through (security/), opens it, freezes it, leaves the graph
containers.py    what kind of file it is, told from its first bytes
description.py   what the file says of itself, for people
opening.py       opens it, as a function of one tensor (opened.py): keras_files.py with Keras 3 or 2, saved_models.py
keras2.py        configurations of Keras 1 and 2, in the words of the last Keras 2
tracing.py       traces that function for one image, and checks that the graph answers as the model does
activation.py    what the scores are, told by the answers and the operators
windows.py       the same for a window of frames, cut in two where each frame passes a CNN alone
graphs/          from one graph to another that computes the same
frozen.py        what comes of it all: FrozenModel
"""
