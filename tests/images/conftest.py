from tests.data.conftest import photo_like, save_photo

__all__ = ["photo_like", "save_photo"]
