from __future__ import annotations

import re

import pytest

from dialin.errors import UsageError
from dialin.supervisor.ports import free_port, is_free, listen


def test_a_port_is_taken_from_the_moment_it_is_chosen():
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert not is_free("127.0.0.1", port)
        assert free_port(port) != port
        with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 is taken; name another with --port"):
            listen("127.0.0.1", port)
    assert is_free("127.0.0.1", port)
    assert free_port(port) == port


def test_an_address_that_is_not_this_machines():
    with pytest.raises(UsageError, match=re.escape("port 8080 on 192.0.2.1 cannot be opened: ")):
        listen("192.0.2.1", 8080)
