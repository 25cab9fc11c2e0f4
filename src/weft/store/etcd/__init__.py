"""The store in etcd v3, for nodes that share one: `store.py` keeps the contract, `watching.py` its
watches, `calls.py` the connections, `messages.py` the words of the protocol."""
