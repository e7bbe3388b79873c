"""Certificates: making them, reading them, keeping them on disk. No Twisted, no sockets."""

from __future__ import annotations

from swarm.pki.authority import AUTHORITY_DAYS, CRL_DAYS, NODE_DAYS, Authority, KeyType, generate_key
from swarm.pki.directory import (
    ALLOW,
    CA,
    CERTIFICATE,
    CRL,
    KEY,
    AuthorityDirectory,
    ensure_identity,
    write_key,
)
from swarm.pki.parsing import (
    common_name,
    hosts,
    is_authority,
    lacking_purposes,
    peer_id,
    purposes,
    read_allow_list,
    read_certificates,
    read_crls,
    read_private_key,
)

__all__ = [
    "ALLOW",
    "AUTHORITY_DAYS",
    "CA",
    "CERTIFICATE",
    "CRL",
    "CRL_DAYS",
    "KEY",
    "NODE_DAYS",
    "Authority",
    "AuthorityDirectory",
    "KeyType",
    "common_name",
    "ensure_identity",
    "generate_key",
    "hosts",
    "is_authority",
    "lacking_purposes",
    "peer_id",
    "purposes",
    "read_allow_list",
    "read_certificates",
    "read_crls",
    "read_private_key",
    "write_key",
]
