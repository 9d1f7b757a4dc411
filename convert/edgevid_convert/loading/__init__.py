"""From a Keras model to one frozen graph, in a child process: what the model does there stays there.

model.py      the parent's side: load_model, and the FrozenModel that comes of it
isolation.py  the child process, its memory limit, and how it ends
child.py      the child's side: looks the file through (vetting/), opens it, freezes it, leaves the graph
containers.py what kind of file it is, told from its first bytes
opening.py    opens it with Keras or TensorFlow, as a function of one tensor
tracing.py    traces that function for one image, and checks that the graph answers as the model does
freezing.py   constants for variables, inner functions inlined, few and common operators
channels.py   channels last, whatever the model had
"""
