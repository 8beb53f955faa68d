"""Functions of CKAN's core, replaced for a while."""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ckan import authz, logic
from ckan import plugins as p
from ckan.lib import plugins as forms
from ckan.lib import signals


@contextmanager
def swap(owner: Any, name: str, ours: Callable[..., Any]) -> Iterator[None]:
    """Puts ours in the place of a function of core's, which ours gets as its first
    argument.
    """
    own, before = vars(owner)[name], getattr(owner, name)

    def replaced(*arguments: Any, **options: Any) -> Any:
        return ours(before, *arguments, **options)

    is_method = isinstance(own, classmethod)
    setattr(owner, name, staticmethod(replaced) if is_method else replaced)
    try:
        yield
    finally:
        setattr(owner, name, own)


def action_within(name: str) -> Any:
    """The function that CKAN's own `get_action` wraps; None where that is not known."""
    function: Any = logic.get_action(name)
    if hasattr(function, "__wrapped__"):
        return function.__wrapped__
    # before CKAN 2.12
    return inspect.getclosurevars(function).nonlocals.get("_action")


def is_core_action() -> bool:
    """Whether the action `package_show` is core's, and no signal tells of its success.

    Who receives the signal may change the result.
    """
    import ckan.logic.action.get as actions

    action = getattr(logic.get_action("package_show"), "__wrapped__", None)
    signalled = signals.action_succeeded.has_receivers_for("package_show")
    return action is actions.package_show and not signalled


def plugins_overriding(interface: Any, hook: str) -> list[Any]:
    """The plugins that have a hook of their own."""
    return [
        plugin
        for plugin in p.PluginImplementations(interface)
        if getattr(type(plugin), hook, None) is not getattr(interface, hook)
    ]


def is_shown_by_core() -> bool:
    """Whether core alone makes what `package_show` gives, but for its resources."""
    import ckan.logic.auth.get as access

    function: Any = authz._AuthFunctions.get("package_show")
    function = getattr(function, "__wrapped__", function)
    labels = type(forms.get_permission_labels())
    hooks = ("read", "after_dataset_show")
    return (
        is_core_action()
        and function is access.package_show
        and labels is forms.DefaultPermissionLabels
        and not any(plugins_overriding(p.IPackageController, hook) for hook in hooks)
    )


def has_core_form(kind: str) -> bool:
    """Whether datasets of a type have core's own form, so core's schema."""
    return type(forms.lookup_package_plugin(kind)).__module__ == forms.__name__
