"""Where networks come from: the zoo, other libraries, a Python file, an ONNX file.

``request`` decides, from what the user typed, which network is meant and refuses what cannot be; it imports
no framework. ``load`` makes the network.
"""
