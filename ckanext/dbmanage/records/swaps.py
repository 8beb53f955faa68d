"""Functions of CKAN's core, replaced for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ckan import authz, logic
from ckan import plugins as p
from ckan.lib import plugins as forms
from ckan.lib import signals


@contextmanager
def swap(owner: Any, name: str, ours: Callable[..., Any]) -> Iterator[None]:
    """Puts ours in the place of a function of core's, which it is handed first."""
    own = vars(owner)[name]
    if isinstance(own, classmethod):
        before = getattr(owner, name)

        def replaced(cls: Any, *arguments: Any, **options: Any) -> Any:
            return ours(before, *arguments, **options)

        setattr(owner, name, classmethod(replaced))
    else:

        def replaced_function(*arguments: Any, **options: Any) -> Any:
            return ours(own, *arguments, **options)

        setattr(owner, name, replaced_function)
    try:
        yield
    finally:
        setattr(owner, name, own)


def is_cores_own() -> bool:
    """Whether the action `package_show` is core's, and nobody is told of its success.

    Who is told may change its result.
    """
    import ckan.logic.action.get as actions

    action = getattr(logic.get_action("package_show"), "__wrapped__", None)
    told = signals.action_succeeded.has_receivers_for("package_show")
    return action is actions.package_show and not told


def plugins_with(interface: Any, hook: str) -> list[Any]:
    """The plugins that have a hook of their own."""
    return [
        plugin
        for plugin in p.PluginImplementations(interface)
        if getattr(type(plugin), hook, None) is not getattr(interface, hook)
    ]


def nobody_takes_part() -> bool:
    """Whether `package_show` is core's alone, but for what is said of resources."""
    import ckan.logic.auth.get as access

    function: Any = authz._AuthFunctions.get("package_show")
    function = getattr(function, "__wrapped__", function)
    labels = type(forms.get_permission_labels())
    hooks = ("read", "after_dataset_show")
    return (
        is_cores_own()
        and function is access.package_show
        and labels is forms.DefaultPermissionLabels
        and not any(plugins_with(p.IPackageController, hook) for hook in hooks)
    )


def has_core_form(kind: str) -> bool:
    return type(forms.lookup_package_plugin(kind)).__module__ == forms.__name__
