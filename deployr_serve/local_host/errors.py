"""What stops the host from starting."""


class HostSetupError(Exception):
    """Something that its operator has to put right before the host can start.

    The message says where (file, key or function), what was expected and what came. It is raised while
    starting only, before any request was read, so it cannot carry anything of a patient's.
    """
