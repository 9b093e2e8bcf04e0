"""What a run strips is contained and destroyed; what it may not do is shut off. See SECURITY.md.

weights.py   stripped adapters: destroyed once they are measured, or kept encrypted; the record of it
keeping.py   encryption at rest (age)
purge.py     stages=[purge]: the end of reply texts
sealing.py   no upload to a hub from this process
"""

from pipeline.contain.purge import purge, purged, require_replies
from pipeline.contain.sealing import seal
from pipeline.contain.weights import begun, contain, containment, destroyed, ready

__all__ = ["begun", "contain", "containment", "destroyed", "purge", "purged", "ready", "require_replies", "seal"]
