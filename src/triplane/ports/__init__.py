"""The contracts. Each Protocol has one shared test suite that every backend passes: those of stores are in
``triplane.conformance``, bound to the shipped backends in ``tests/contract``.

All operations are coroutines, safe to call concurrently, and raise the errors of ``triplane.errors``;
``Unavailable`` means nothing is known to have happened and repeating the call is safe.
"""

from triplane.domain.collection import StoredBlob as StoredBlob
from triplane.domain.resourcegraph import Edge as Edge
from triplane.domain.resourcegraph import GraphChange as GraphChange
from triplane.domain.resourcegraph import Hop as Hop
from triplane.domain.resourcegraph import ResourceRecord as ResourceRecord
from triplane.domain.resourcegraph import Route as Route
from triplane.ports.accounts import AccountStore as AccountStore
from triplane.ports.accounts import PrincipalRow as PrincipalRow
from triplane.ports.accounts import SigningKeys as SigningKeys
from triplane.ports.clock import Clock as Clock
from triplane.ports.cluster import Cluster as Cluster
from triplane.ports.cluster import ConfigMaps as ConfigMaps
from triplane.ports.cluster import KubeEvent as KubeEvent
from triplane.ports.cluster import ObjectIndex as ObjectIndex
from triplane.ports.cluster import Page as Page
from triplane.ports.content import CollectorLease as CollectorLease
from triplane.ports.content import ContentStore as ContentStore
from triplane.ports.content import KeeperRole as KeeperRole
from triplane.ports.content import KeptContent as KeptContent
from triplane.ports.graph import GraphReader as GraphReader
from triplane.ports.graph import GraphStore as GraphStore
from triplane.ports.judging import Contracts as Contracts
from triplane.ports.judging import Expressions as Expressions
from triplane.ports.judging import PolicyEngine as PolicyEngine
from triplane.ports.log import CheckpointStore as CheckpointStore
from triplane.ports.log import EventLog as EventLog
from triplane.ports.notary import Anchor as Anchor
from triplane.ports.notary import Ledger as Ledger
from triplane.ports.notary import NotaryKeys as NotaryKeys
from triplane.ports.notary import Witness as Witness
from triplane.ports.sessions import SessionStore as SessionStore
from triplane.ports.sessions import Wakeups as Wakeups
