"""Plugins of every kind, that other people might have: `plugins` installs them."""

from __future__ import annotations

#: plugins of a test's own, each of which has a say in `package_show`
PLUGINS = '''
import os
import time

import ckan.model as model
import ckan.plugins as p
import ckan.plugins.toolkit as tk
from ckan.lib.plugins import DefaultDatasetForm, DefaultPermissionLabels
from flask import Blueprint, redirect


class Hooks(p.SingletonPlugin):
    p.implements(p.IPackageController, inherit=True)
    p.implements(p.IResourceController, inherit=True)

    def read(self, entity):
        self.seen = entity.name

    def before_resource_show(self, resource):
        resource["shown_by"] = "hook"
        return resource

    def after_dataset_show(self, context, dataset):
        dataset["seen"] = self.seen
        dataset["entity"] = context["package"].title


class Queries(p.SingletonPlugin):
    """Asks the database, shows another dataset, and ends the transaction."""

    p.implements(p.IPackageController, inherit=True)

    def after_dataset_show(self, context, dataset):
        dataset["total"] = model.Session.query(model.Package).count()
        if not context.get("inner"):
            other = tk.get_action("package_show")(
                {"user": "", "inner": True}, {"id": "bare-1"}
            )
            dataset["other"] = other["title"]
        if len(dataset["name"]) % 3 == 0:
            model.Session.rollback()


class Chained(p.SingletonPlugin):
    p.implements(p.IActions)

    def get_actions(self):
        @tk.chained_action
        @tk.side_effect_free
        def package_show(original, context, data):
            shown = original(context, data)
            shown["chained"] = [1e22, 0.1, {"b": None, "a": 1 << 80}]
            return shown
        return {"package_show": package_show}


class Form(p.SingletonPlugin, DefaultDatasetForm):
    """A form of its own for the type `custom`; one dataset of it cannot be shown."""

    p.implements(p.IDatasetForm)

    def package_types(self):
        return ["custom"]

    def is_fallback(self):
        return False

    def show_package_schema(self):
        schema = super().show_package_schema()

        def broken(key, data, errors, context):
            if context["package"].name.endswith("7"):
                raise KeyError("no such field")
        schema["title"] = [broken]
        schema["notes"] = [tk.get_validator("ignore")]
        return schema


class Labels(p.SingletonPlugin, DefaultPermissionLabels):
    """Visitors may not read what ends with 5."""

    p.implements(p.IPermissionLabels)

    def get_dataset_labels(self, dataset):
        labels = super().get_dataset_labels(dataset)
        return ["secret"] if dataset.name.endswith("5") else labels


class Prints(p.SingletonPlugin):
    """Talks, as one does who looks for an error."""

    p.implements(p.IPackageController, inherit=True)

    def after_dataset_show(self, context, dataset):
        print("a hook speaks")
        os.write(1, b"and louder")


class Fails(p.SingletonPlugin):
    """Fails in ways that look like a rule of access, and says what JSON cannot."""

    p.implements(p.IPackageController, inherit=True)

    def after_dataset_show(self, context, dataset):
        if dataset["name"] == "dataset-2":
            raise tk.ObjectNotFound("its page")
        if dataset["name"] == "dataset-3":
            tk.get_action("package_delete")({"user": "", "model": model}, {"id": "id-3"})
        if dataset["name"] == "dataset-4":
            dataset["ratio"] = [{"of": float("nan")}]
        if dataset["name"] == "dataset-5":
            dataset["asked"] = time.monotonic_ns()
        if dataset["title"] == "Broken":
            raise KeyError("no such field")


class Replaced(p.SingletonPlugin):
    p.implements(p.IActions)

    def get_actions(self):
        @tk.side_effect_free
        def package_show(context, data):
            tk.check_access("package_show", context, data)
            package = model.Package.get(data["id"])
            return {"id": package.id, "name": package.name, "of": "its own"}
        return {"package_show": package_show}


class Told(p.SingletonPlugin):
    """Changes what an action gave once that has succeeded."""

    p.implements(p.ISignal)

    def get_signal_subscriptions(self):
        return {
            tk.signals.action_succeeded: [{"sender": "package_show", "receiver": told}]
        }


def told(sender, result, **_):
    result["told"] = True


class Checked(p.SingletonPlugin):
    """Has a validator of its own under the name of one of core's."""

    p.implements(p.IValidators)

    def get_validators(self):
        def package_name_validator(key, data, errors, context):
            data["url",] = "https://example.com/" + data[key]
        return {"package_name_validator": package_name_validator}


class Keyed(p.SingletonPlugin, DefaultDatasetForm):
    """Validators made anew at each call, which nothing tells apart but what they hold."""

    p.implements(p.IDatasetForm)

    def package_types(self):
        return []

    def is_fallback(self):
        return True

    def show_package_schema(self):
        def ended(end):
            def validator(value, context=[]):
                return f"{value}{end!r}"
            return validator
        schema = super().show_package_schema()
        for name, end in (("title", 1), ("notes", True), ("url", 1.0), ("version", [])):
            schema[name] = [ended(end)]
        return schema


class Closed(p.SingletonPlugin):
    """Lets nobody in who is not signed in, as no rule of access does."""

    p.implements(p.IBlueprint)

    def get_blueprint(self):
        made = Blueprint("closed", __name__)

        @made.before_app_request
        def signed_in():
            if not tk.g.user:
                return redirect("/user/login")
        return made


class Tells(p.SingletonPlugin):
    """Tells others of a new dataset; they ask the database. Of one it ends all."""

    p.implements(p.IPackageController, inherit=True)

    def after_dataset_create(self, context, dataset):
        if dataset["name"] == "ends":
            model.Session.close()
        with model.meta.engine.connect() as other:
            found = other.exec_driver_sql("SELECT count(*) FROM package").scalar()
        print("others see", found)
'''

NAMES = (
    "Hooks", "Queries", "Chained", "Form", "Labels", "Prints", "Fails", "Replaced",
    "Told", "Checked", "Keyed", "Closed", "Tells",
)  # fmt: skip
