"""The wall towards the disk: complete blobs, partial pulls, the catalog.

Everything here reaches the disk through :class:`swarm.storage.disk.Disk`, but for SQLite.
"""
