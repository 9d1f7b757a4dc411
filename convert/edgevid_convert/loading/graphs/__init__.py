"""From one GraphDef to another that computes the same: what converters and engines take.

freezing.py   constants for variables, inner functions inlined, few and common operators
channels.py   channels last, whatever the model had
float32.py    float32, whatever the model computed in
rewriting.py  common operators for those that TFLite or ONNX lack
cutting.py    a classifier of images in two, before its last layer
"""
