"""What can go wrong in the predictor."""


class StartError(Exception):
    """The server can't start; the text says why."""


class ModelError(Exception):
    """A model can't be served: its graph contradicts its manifest, or doesn't answer a probe."""


class InputError(Exception):
    """A request's rows can't be used; the text names the field."""


class NotLoadedError(Exception):
    """No such model is loaded."""
