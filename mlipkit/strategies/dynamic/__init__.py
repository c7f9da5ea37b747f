"""Dynamic training: a potential is trained on short pieces of AIMD that it integrates itself."""
