"""Start the agent from its folder (``python agent JOBDIR``) or as a module (``python -m``)."""

import importlib
import os
import sys
import types

package = __package__
if not package:
    # Started as a folder there is no package for the siblings to belong to, and the folder itself is on the
    # path, where host.py or loop.py could shadow a module of that name: make the package, unlist the folder.
    folder = os.path.dirname(os.path.abspath(__file__))
    package = "edgecnn_agent"
    module = types.ModuleType(package)
    module.__path__ = [folder]
    sys.modules[package] = module
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != folder]

sys.exit(importlib.import_module(package + ".run").main(sys.argv[1:]))
