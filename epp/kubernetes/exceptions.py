"""What can go wrong with the Kubernetes API. Nothing of it ends the picker: whoever meets it tries again."""


class KubernetesError(Exception):
    """The Kubernetes API didn't do what it was asked; the text says what and why."""


class CredentialsError(KubernetesError):
    """There is no token to ask with: its file can't be read, or the plugin that prints it fails."""


class UnreachableError(KubernetesError):
    """No answer, or one that broke off."""


class ApiError(KubernetesError):
    """The API server refused; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} ({status})")
        self.status = status


class ExpiredError(ApiError):
    """What was asked for lies too far back: the server no longer has that part of the history (410)."""
