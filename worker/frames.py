"""Exceptions hold the frames that they went through, and those may hold the exception, and what they worked on."""


def forget_frames(failure: BaseException | None) -> None:
    """Break the cycle of an exception, and of those that it came from, with the frames that hold it.

    Memory in a cycle is there until the garbage collector runs, which counts objects and not bytes: ten answers that
    were cut off took 50 MB before that, and a flood of strangers' bodies half a gigabyte.
    """
    while failure is not None:
        failure.__traceback__ = None
        failure = failure.__cause__ or failure.__context__
