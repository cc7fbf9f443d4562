"""A greenhouse board for end-to-end tests."""

import pytest
from boardlet_cli.site import Site
from greenhouse import Greenhouse, greenhouse


@pytest.fixture
def one(site: Site) -> Greenhouse:
    """A greenhouse board that is Ready."""
    made = greenhouse(site)
    made.synced()
    return made
