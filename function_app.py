"""The Azure Functions app: settings to services to functions. `deployr host` runs this same file without Azure."""

import logging
import os

import azure.functions as func

from deployr_serve.alert_bootstrap import watch_of
from deployr_serve.blueprint import serving_blueprint
from deployr_serve.blueprint_alerts import alert_blueprint
from deployr_serve.blueprint_pages import pages_blueprint
from deployr_serve.bootstrap import Application, build
from deployr_serve.settings import Settings, read_settings
from label_extractors.blueprint import label_blueprint

# On the real worker, the SDK's INFO logs print partition keys.
logging.getLogger("azure").setLevel(logging.WARNING)


def functions_of(settings: Settings, application: Application) -> func.FunctionApp:
    """Give the functions of one site."""
    app = func.FunctionApp()
    app.register_functions(serving_blueprint(application, relay_schedule=settings.relay_schedule))
    app.register_functions(pages_blueprint(application))
    app.register_functions(alert_blueprint(watch_of(settings, application), schedule=settings.alerts.schedule))
    # What is not configured is not imported either: a worker that starts is waited for.
    if application.cds is not None:
        from deployr_serve.blueprint_cds import cds_blueprint

        app.register_functions(cds_blueprint(application, application.cds))
    if settings.bpa is not None:
        from deployr_serve.blueprint_bpa import bpa_blueprint

        app.register_functions(bpa_blueprint(application, settings.bpa))
    if application.batches is not None:
        from deployr_serve.blueprint_batch import batch_blueprint

        app.register_functions(batch_blueprint(application.batches))
    if application.vault is not None:
        from deployr_serve.blueprint_facts import facts_blueprint

        app.register_functions(facts_blueprint(application.vault, clock=application.services.clock))
    if application.audit is not None:
        from deployr_serve.blueprint_audit import audit_blueprint

        app.register_functions(audit_blueprint(application.services, application.audit))
    if application.registry is not None:
        from deployr_serve.blueprint_models import models_blueprint

        app.register_functions(models_blueprint(application, application.registry))
    if settings.audit.retention_days:
        from deployr_serve.blueprint_audit import retention_blueprint

        app.register_functions(retention_blueprint(application.services, settings.audit, application.audit))
    app.register_functions(label_blueprint(application.services, application.outcomes, settings.labels))
    return app


if os.environ.get("DEPLOYR_SITES"):
    from deployr_serve.blueprint_sites import open_sites
    from deployr_serve.sites_settings import read_sites

    sites = open_sites(read_sites(os.environ), functions_of)
    app = sites.app
else:
    settings = read_settings(os.environ)
    application = build(settings)
    app = functions_of(settings, application)
