"""The same segments on a Ray cluster: one film over many workers, many films at once.

The driver plans, keeps the journal and joins; workers hold the model, read their own span of the
source and write segment files beside the result. Sources are URLs or lie on a file system that all
machines see under the same path; results too, or they travel to the driver. Needs the extra
`cluster` (Ray).
"""

from .engine import Cluster

__all__ = ["Cluster"]
