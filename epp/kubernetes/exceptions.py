"""Errors of the Kubernetes API. None of them ends the picker: its callers try again."""


class KubernetesError(Exception):
    """The Kubernetes API did not do what the picker asked; the text says what and why."""


class CredentialsError(KubernetesError):
    """There is no token to ask with: its file can't be read, or the plugin that prints it fails."""


class UnreachableError(KubernetesError):
    """There was no answer, or it broke off."""


class ApiError(KubernetesError):
    """The API server refused; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{message} ({status})")
        self.status = status


class ExpiredError(ApiError):
    """The requested version is too old: the server no longer has that part of the history (410)."""
