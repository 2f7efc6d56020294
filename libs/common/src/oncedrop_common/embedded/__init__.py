"""The whole stack on one machine, without Docker: `python -m oncedrop_common.embedded`.

A real valkey-server and the three services, each a process of its own. The process types are in
Procfile.txt (the Procfile at the top of the repository is a link to it).
"""
