from tests.jobs.kinds.material import material

__all__ = ["material"]
