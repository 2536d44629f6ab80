"""Publishing into Git: a plan's files as one commit on a branch of a working copy, and back to an earlier plan.

The files of a plan stand in one folder of the repository: `plan.json`, `manifests/` and `published.json`, which lists
them. What is live is read from the branch alone. A commit is made beside the working copy, in an index of its own, and
becomes visible by moving the branch once: a kill leaves the branch as it was, or with the whole commit. Nothing is
pushed.
"""

from flows.gitops.commit import Target
from flows.gitops.publish import Outcome, publish
from flows.gitops.published import Published
from flows.gitops.rollback import before, held, rollback
from flows.gitops.working_copy import WorkingCopy, open_copy

__all__ = ["Outcome", "Published", "Target", "WorkingCopy", "before", "held", "open_copy", "publish", "rollback"]
