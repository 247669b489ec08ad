"""Whole servers over real sockets: ours and its peers, each in a process of its own, and the clients in another."""
