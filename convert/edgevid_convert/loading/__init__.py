"""From a Keras model to one frozen graph, in a child process: what the model does there stays there.

model.py      the parent's side: load_model; and what passes between it and the child
isolation.py  the child process, its memory limit, and how it ends
child.py      the child's side: looks the file through (vetting/), opens it, freezes it, leaves the graph
containers.py what kind of file it is, told from its first bytes
opening.py    opens it with Keras or TensorFlow, as a function of one tensor
tracing.py    traces that function for one image, and checks that the graph answers as the model does
windows.py    the same for a window of frames, cut in two where each frame passes a CNN alone
cutting.py    cuts a frozen classifier of images before its last layer
frozen.py     what comes of it all: FrozenModel
freezing.py   constants for variables, inner functions inlined, few and common operators
channels.py   channels last, whatever the model had
"""
