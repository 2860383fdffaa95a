"""What an application is made of."""

from __future__ import annotations

from dataclasses import dataclass

from dialin.server.auth import Authenticator
from dialin.server.metrics import MetricsCollector
from dialin.server.mirror_keeper import MirrorKeeper
from dialin.server.readiness import Readiness
from dialin.server.reconciler import Reconciler
from dialin.server.services.bundles import BundleService
from dialin.server.services.studies import StudyService
from dialin.server.services.submission import SubmissionService
from dialin.server.services.trials import TrialService
from dialin.server.study_reader import SharedStudyReader
from dialin.settings import ServerSettings, Settings
from dialin.store.submissions import Submissions
from dialin.store.tokens import Tokens


@dataclass(frozen=True)
class AppState:
    """The parts of one server's application, which routes reach as `request.app.state.dialin`."""

    settings: Settings
    """The settings that every part of dialin reads."""
    limits: ServerSettings
    """The settings that only the server reads."""
    submissions: Submissions
    """The rows of studies and of what was asked of them."""
    tokens: Tokens
    """The rows of tokens and sessions."""
    reader: SharedStudyReader
    """What the services and the metrics read of studies."""
    studies: StudyService
    """Studies, as they are read."""
    trials: TrialService
    """Trials, as they are read."""
    submission: SubmissionService
    """Plans, new studies, and actions on studies."""
    bundles: BundleService
    """Files that callers sent."""
    auth: Authenticator
    """Who a caller is, and whether they asked too often."""
    reconciler: Reconciler
    """The loop that starts and stops drivers."""
    mirror_keeper: MirrorKeeper
    """The loop that has MLflow catch up."""
    readiness: Readiness
    """Whether the database, Ray and MLflow answer."""
    metrics: MetricsCollector
    """The metrics for Prometheus."""

    def close(self) -> None:
        """Close the connections to the database. A part that is used again opens new ones."""
        self.reader.close()
        self.bundles.close()
        self.submissions.close()
        self.tokens.close()
