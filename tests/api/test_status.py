"""What a node says of itself, of a blob's whereabouts and of a running pull."""

from __future__ import annotations

import json

from prometheus_client.parser import text_string_to_metric_families

from swarm.api.metrics import NodeCollector
from swarm.api.status import NodeFacts
from swarm.model.digest import Digest
from swarm.model.peers import PeerID
from swarm.services.progress import Counters, PullProgress, SourceProgress

from .node import PEER, Location, Node

BLOB = b"blob" * 1000
ID = Digest.of(BLOB)
PULL = PullProgress(
    ID, 4000, 1024, 0, 0.0, "running", (SourceProgress("north", PEER.id, 2048, 512.4, "busy", "span 1"),)
)


def facts(**kwargs: object) -> NodeFacts:
    return NodeFacts("here", "test", "1.2.3", "ab" * 32, "midstates", **kwargs)  # type: ignore[arg-type]


def test_a_ready_node_says_everything() -> None:
    node = Node(facts=facts(certificate_ends=lambda: 864_000.0))
    node.membership.peers = (PEER,)
    node.store.put(BLOB)
    node.fetcher.running[ID] = PULL
    node.clock.advance(2)
    response = node.ask("GET", "/ready")
    document = json.loads(response.body)
    assert response.status == 200 and document["ready"] and document["reasons"] == []
    assert (document["name"], document["cluster"], document["version"]) == ("here", "test", "1.2.3")
    assert document["certificate_days"] == 10.0 and document["hashing"] == "midstates"
    assert document["usage"]["blobs"] == 1 and document["usage"]["bytes"] == len(BLOB)
    assert document["peers"] == [
        {
            "name": "north",
            "id": PEER.id.hex,
            "address": "north.example:7041",
            "url": "https://north.example",
            "state": "alive",
            "silent_for": 2.0,
            "detail": "",
        }
    ]
    assert document["pulls"][0]["sha512"] == ID.hex


def test_a_node_that_is_not_ready_says_why() -> None:
    node = Node(facts=facts(certificate_ends=lambda: 5.0, not_ready=lambda: ["still opening the store"]))
    node.store.read_only = "EIO on data"
    node.clock.advance(5)
    response = node.ask("GET", "/ready")
    document = json.loads(response.body)
    assert response.status == 503 and not document["ready"]
    assert document["reasons"] == [
        "still opening the store",
        "the volume takes no writes: EIO on data",
        "our certificate has ended",
    ]


def test_locations_name_nodes_and_show_the_pull() -> None:
    node = Node()
    node.replicator.where = [Location("north", PEER.id, "partial", "https://north.example")]
    node.fetcher.running[ID] = PULL
    node.clock.advance(3)
    document = json.loads(node.ask("GET", f"/{ID}/locations").body)
    assert document == {
        "sha512": ID.hex,
        "length": 4000,
        "nodes": [{"name": "north", "id": PEER.id.hex, "state": "partial", "url": "https://north.example"}],
        "pull": {
            "sha512": ID.hex,
            "size": 4000,
            "verified": 1024,
            "state": "running",
            "seconds": 3.0,
            "sources": [
                {
                    "name": "north",
                    "id": PEER.id.hex,
                    "bytes": 2048,
                    "rate": 512,
                    "state": "busy",
                    "detail": "span 1",
                }
            ],
        },
    }


def test_locations_of_a_blob_here() -> None:
    node = Node()
    node.store.put(BLOB)
    document = json.loads(node.ask("GET", f"/{ID}/locations").body)
    assert document["length"] == len(BLOB) and document["pull"] is None
    assert document["nodes"] == [
        {"name": "here", "id": PeerID(b"h" * 32).hex, "state": "complete", "url": None}
    ]


def test_refreshing_peers_lists_those_in_force() -> None:
    node = Node()
    node.membership.peers = (PEER,)
    assert json.loads(node.ask("PUT", "/refreshpeers.html").body) == {"peers": ["north.example:7041"]}


def scrape(node: Node) -> dict[str, float]:
    response = node.ask("GET", "/metrics")
    assert response.fields["content-type"].startswith("text/plain; version=0.0.4")
    return {
        sample.name + "".join(f",{value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.body.decode())
        for sample in family.samples
    }


def test_metrics_count_responses_and_bytes() -> None:
    node = Node()
    node.ask("PUT", "/f", body=BLOB)
    node.ask("GET", f"/{ID}")
    node.ask("GET", f"/{Digest.of(b'absent')}")
    node.ask("BREW", "/coffee")
    node.wire().send(b"nonsense\r\n\r\n")
    found = scrape(node)
    assert found["swarm_http_requests_total,200,GET"] == 1
    assert found["swarm_http_requests_total,404,GET"] == 1
    assert found["swarm_http_requests_total,201,PUT"] == 1
    assert found["swarm_http_requests_total,405,other"] == 1
    assert found["swarm_http_requests_total,400,none"] == 1
    assert found["swarm_http_received_bytes_total"] == len(BLOB)
    assert found["swarm_http_sent_bytes_total"] > len(BLOB)


def test_metrics_read_the_services() -> None:
    node = Node()
    node.store.put(BLOB)
    counters = Counters(pulls_started=3, bytes_duplicated=7, grains_rejected=1)
    node.registry.register(
        NodeCollector(
            usage=node.store.usage,
            counters=lambda: counters,
            peers=lambda: 4,
            pulls=lambda: 2,
            hints=lambda: 5,
            refusals=lambda: 6,
            certificate_days=lambda: 30.0,
            revocation_list_days=lambda: None,
            workers=lambda: 3,
            worker_restarts=lambda: 1,
        )
    )
    found = scrape(node)
    assert found["swarm_store_bytes"] == len(BLOB) and found["swarm_store_blobs"] == 1
    assert found["swarm_pulls_started_total"] == 3 and found["swarm_bytes_duplicated_total"] == 7
    assert found["swarm_peers_live"] == 4 and found["swarm_pulls_running"] == 2
    assert found["swarm_certificate_days"] == 30
    assert "swarm_revocation_list_days" not in found
    assert found["swarm_hints_pending"] == 5 and found["swarm_peer_refusals_total"] == 6
