"""The store in etcd v3, for nodes that share one: `store.py` keeps the contract, `watching.py` its
watches, `calls.py` the connections, `messages.py` the words of the protocol.

gRPC is told, before it is imported, to leave forks alone: it would otherwise begin threads in each
child, and a process with threads cannot enter a mount namespace (setns(2), EINVAL).
"""

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
