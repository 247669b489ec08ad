"""``CHANNEL_LAYERS``: the layers made from it, and the error for each mistake in it."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.core.exceptions import ImproperlyConfigured

from trio_channels import layers
from trio_channels.exceptions import InvalidChannelLayerError
from trio_channels.layers import ChannelLayerManager, InMemoryChannelLayer, channel_layers, get_channel_layer
from trio_channels.layers.base import ChannelLayer

MEMORY = "trio_channels.layers.InMemoryChannelLayer"
REDIS = "trio_channels.layers.redis.RedisStreamsChannelLayer"


class SlowLayer(InMemoryChannelLayer):
    """Lets other threads run while it is being made."""

    made = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        type(self).made += 1
        time.sleep(0.01)  # widens the window of a race; no test waits for it


class NestedLayer(InMemoryChannelLayer):
    """A layer that uses another configured one."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.inner = channel_layers["inner"]


class OwnLayer(InMemoryChannelLayer):
    """Has an option of its own."""

    def __init__(self, **options: Any) -> None:
        self.mine = options.pop("mine", None)
        super().__init__(**options)


class AsyncioLayer:
    """Takes the arguments of Channels' layers, none of which is called overflow."""

    def __init__(self, expiry: int = 60, capacity: int = 100) -> None: ...


def broken_factory(**options: Any) -> InMemoryChannelLayer:
    raise KeyError("a bug of the backend")


def wrong_factory(**options: Any) -> object:
    return object()


@pytest.fixture
def manager() -> ChannelLayerManager:
    return ChannelLayerManager()


def use(settings: Any, **entry: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": MEMORY} | entry}


def test_layer_is_made_on_first_use_and_kept(manager: ChannelLayerManager) -> None:
    assert manager.backends == {}
    layer = manager["default"]
    assert isinstance(layer, InMemoryChannelLayer)
    assert manager["default"] is layer


def test_configuration_reaches_the_layer(settings: Any, manager: ChannelLayerManager) -> None:
    use(settings, CONFIG={"capacity": 7, "expiry": 5, "overflow": "drop_oldest", "channel_capacity": {"a*": 1}})
    layer = manager["default"]
    assert (layer.capacity, layer.expiry, layer.overflow, layer.get_capacity("abc")) == (7, 5, "drop_oldest", 1)


def test_capacity_and_overflow_default_to_the_settings(settings: Any, manager: ChannelLayerManager) -> None:
    settings.TRIO_CHANNELS = {"MAILBOX_CAPACITY": 3, "MAILBOX_OVERFLOW": "drop_newest"}
    assert (manager["default"].capacity, manager["default"].overflow) == (3, "drop_newest")


def test_test_layer_has_a_configuration_of_its_own(manager: ChannelLayerManager) -> None:
    assert manager.make_test_backend("default").capacity == 5
    assert manager.make_backend("default").capacity == 100
    assert manager.backends == {}


def test_test_layer_needs_a_configuration(settings: Any, manager: ChannelLayerManager) -> None:
    use(settings)
    with pytest.raises(InvalidChannelLayerError, match="no TEST_CONFIG"):
        manager.make_test_backend("default")


@pytest.mark.parametrize("name", ["CHANNEL_LAYERS", "TRIO_CHANNELS"])
def test_changed_setting_makes_new_layers(settings: Any, manager: ChannelLayerManager, name: str) -> None:
    old = manager["default"]
    setattr(settings, name, {"default": {"BACKEND": MEMORY}} if name == "CHANNEL_LAYERS" else {})
    assert manager["default"] is not old


def test_another_setting_keeps_the_layers(settings: Any, manager: ChannelLayerManager) -> None:
    old = manager["default"]
    settings.USE_TZ = False
    assert manager["default"] is old


def test_manager_that_is_dropped_is_not_kept_by_the_signal(settings: Any) -> None:
    ChannelLayerManager()
    gc.collect()
    settings.CHANNEL_LAYERS = {}


def test_layer_can_be_put_in_place_of_another(manager: ChannelLayerManager) -> None:
    configured, mine = manager["default"], InMemoryChannelLayer()
    assert manager.set("default", mine) is configured
    assert manager["default"] is mine
    assert manager.set("default", None) is mine
    assert manager.set("default", None) is None
    assert manager["default"] is not mine


def test_alias_is_known_if_configured_or_put_in(manager: ChannelLayerManager) -> None:
    manager.set("mine", InMemoryChannelLayer())
    assert "default" in manager
    assert "mine" in manager
    assert "other" not in manager


def test_repr_shows_the_layers_made(manager: ChannelLayerManager) -> None:
    manager.set("mine", InMemoryChannelLayer())
    assert repr(manager).startswith("<ChannelLayerManager {'mine': <InMemoryChannelLayer 0 channels")


def test_threads_that_ask_at_once_get_one_layer(settings: Any, manager: ChannelLayerManager) -> None:
    use(settings, BACKEND=f"{__name__}.SlowLayer")
    got: list[Any] = []
    SlowLayer.made = 0
    threads = [threading.Thread(target=lambda: got.append(manager["default"])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert SlowLayer.made == 1
    assert len(set(map(id, got))) == 1
    assert len(got) == 8


def test_layer_may_be_made_of_another_one(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": f"{__name__}.NestedLayer"}, "inner": {"BACKEND": MEMORY}}
    layer = channel_layers["default"]
    assert isinstance(layer, NestedLayer)
    assert layer.inner is channel_layers["inner"]


# -- get_channel_layer ------------------------------------------------------------------------------------------------


def test_default_layer_needs_no_name() -> None:
    assert get_channel_layer() is channel_layers["default"]


def test_alias_that_is_not_configured_gives_none(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {}
    assert get_channel_layer() is None
    assert get_channel_layer("other") is None


def test_project_without_channel_layers_has_none(settings: Any) -> None:
    del settings.CHANNEL_LAYERS
    assert get_channel_layer() is None


def test_settings_module_that_fails_is_not_taken_for_no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        configured = False

        def __getattr__(self, name: str) -> Any:
            raise ImproperlyConfigured("the settings module needs the variable REDIS_URL")

    monkeypatch.setattr(layers, "settings", Failing())
    monkeypatch.setattr(layers, "channel_layers", layers.ChannelLayerManager())  # one that has read no settings yet
    with pytest.raises(ImproperlyConfigured, match="REDIS_URL"):
        get_channel_layer("elsewhere")


# -- mistakes ---------------------------------------------------------------------------------------------------------


def test_missing_package_of_redis_is_named(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    def import_string(path: str) -> None:
        raise ModuleNotFoundError("No module named 'hiredis'")

    monkeypatch.setattr(layers, "import_string", import_string)
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": REDIS}}
    with pytest.raises(InvalidChannelLayerError, match=r"hiredis'; install it: pip install 'trio-channels\[redis\]'$"):
        ChannelLayerManager().make_backend("default")


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        ({"BACKEND": None}, r"needs a BACKEND such as 'trio_channels.layers.InMemoryChannelLayer'; got None"),
        ({"BACKEND": InMemoryChannelLayer}, "needs a BACKEND"),
        ({"BACKEND": "no_such_module.Layer"}, "cannot import 'no_such_module.Layer'"),
        ({"BACKEND": "trio_channels.layers.NoSuchLayer"}, "cannot import"),
        ({"BACKEND": "nodots"}, "cannot import"),
        ({"BACKEND": f"{__name__}.AsyncioLayer"}, "layers for asyncio .* do not run on Trio"),
        ({"BACKEND": f"{__name__}.wrong_factory"}, "layers for asyncio .* do not run on Trio"),
        ({"ROUTING": "project.routing"}, "the key ROUTING of Channels 1; remove it, and set ASGI_APPLICATION"),
        ({"BACKEND": "trio_channels.layers.RedisStreamsChannelLayer"}, f"did you mean '{REDIS}'"),
        ({"BACKEND": "trio_channels.layers.InMemoryLayer"}, f"did you mean '{MEMORY}'"),
        ({"BACKEND": "memory"}, f"Known: {MEMORY}, {REDIS}"),
        ({"CONFG": {}}, "has no key 'CONFG'; did you mean 'CONFIG'"),
        ({"OPTIONS": {}}, "has no key 'OPTIONS'. Known: BACKEND, CONFIG"),
        ({"CONFIG": {"capcity": 5}}, r"\['CONFIG'\] has no key 'capcity'; did you mean 'capacity'"),
        ({"CONFIG": {"hosts": []}}, r"has no key 'hosts'. Known: .*overflow"),
        ({"CONFIG": {5: 5}}, "has no key 5"),
        ({"CONFIG": {"capcity": 5}, "BACKEND": REDIS}, "did you mean 'capacity'"),
        ({"CONFIG": {"Hosts": []}, "BACKEND": REDIS}, "did you mean 'hosts'"),
        ({"CONFIG": {"symmetric_encryption_key": []}, "BACKEND": REDIS}, "did you mean 'symmetric_encryption_keys'"),
        ({"CONFIG": {"capcity": 5}, "BACKEND": f"{__name__}.SlowLayer"}, "argument 'capcity'"),
        ({"CONFIG": {"x": 5}, "BACKEND": f"{__name__}.OwnLayer"}, "unexpected keyword argument 'x'"),
        ({"CONFIG": {"capacity": 0}}, "capacity of a channel layer must be"),
        ({"CONFIG": None}, r"\['CONFIG'\] must be a dict; got NoneType"),
    ],
    ids=repr,
)
def test_mistake_in_an_entry_is_named(
    settings: Any, manager: ChannelLayerManager, entry: dict[str, Any], complaint: str
) -> None:
    use(settings, **entry)
    with pytest.raises(InvalidChannelLayerError, match=complaint):
        manager["default"]
    assert manager.backends == {}


def test_layer_of_others_may_have_options_of_its_own(settings: Any, manager: ChannelLayerManager) -> None:
    use(settings, BACKEND=f"{__name__}.OwnLayer", CONFIG={"mine": 5})
    layer: Any = manager["default"]
    assert layer.mine == 5


def test_bug_in_a_backend_is_not_hidden(settings: Any, manager: ChannelLayerManager) -> None:
    use(settings, BACKEND=f"{__name__}.broken_factory")
    with pytest.raises(KeyError, match="a bug of the backend"):
        manager["default"]


def test_alias_that_is_missing_is_named_with_those_there_are(settings: Any, manager: ChannelLayerManager) -> None:
    with pytest.raises(InvalidChannelLayerError, match="no entry 'other'; configured: 'default'"):
        manager["other"]
    settings.CHANNEL_LAYERS = {}
    with pytest.raises(InvalidChannelLayerError, match="configured: none"):
        manager["other"]


@pytest.mark.parametrize("value", [None, ["secret"], {"default": "secret"}, {"default": None}], ids=repr)
def test_setting_of_another_shape_is_refused_without_showing_it(
    settings: Any, manager: ChannelLayerManager, value: Any
) -> None:
    settings.CHANNEL_LAYERS = value
    with pytest.raises(InvalidChannelLayerError, match="must be a dict of dicts") as caught:
        manager["default"]
    assert "secret" not in str(caught.value)


def test_settings_changed_without_a_signal_are_seen(
    manager: ChannelLayerManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "other" not in manager
    monkeypatch.setattr(django_settings, "CHANNEL_LAYERS", {"other": {"BACKEND": MEMORY}})
    assert isinstance(manager["other"], InMemoryChannelLayer)
    django_settings.CHANNEL_LAYERS["third"] = {"BACKEND": MEMORY}
    assert "third" in manager


def test_fork_while_a_layer_is_made_leaves_no_lock_held(settings: Any) -> None:
    settings.CHANNEL_LAYERS = {"default": {"BACKEND": MEMORY}}
    manager = ChannelLayerManager()
    thread = threading.Thread(target=manager._lock.acquire)  # as after a fork: nobody releases the lock
    thread.start()
    thread.join()
    manager._after_fork()
    assert isinstance(manager["default"], InMemoryChannelLayer)


async def test_layer_of_others_names_no_mailboxes_by_default() -> None:
    class Theirs(InMemoryChannelLayer):
        mailboxes_here = ChannelLayer.mailboxes_here
        groups_here = ChannelLayer.groups_here

    layer = Theirs()
    with layer.open_mailbox() as mailbox:
        await layer.group_add("room", mailbox.name)
        assert layer.mailboxes_here(group="room") == []
        assert layer.groups_here() == {}
