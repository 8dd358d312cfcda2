"""The work of the Celery workers."""

from __future__ import annotations

import os

from celery import Celery
from celery.signals import setup_logging

from app import log
from app.db import get_sync_session, is_retryable
from app.models import Order

__all__ = ["celery_app", "confirm"]

celery_app = Celery("shop", broker=os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0"))
celery_app.conf.update(
    broker_connection_retry_on_startup=True,
    task_ignore_result=True,
    # A worker that dies in the middle of a task leaves it to another one, so a task must be able to run twice.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
)


@setup_logging.connect
def _configure_logs(**_options: object) -> None:
    log.configure()


@celery_app.task(bind=True, name="shop.confirm", max_retries=5)
def confirm(self: object, order_id: int) -> None:
    """Confirm an order; run again where two transactions met or the connection was lost."""
    try:
        with get_sync_session() as session:
            session.get_one(Order, order_id).is_confirmed = True
    except Exception as error:
        if is_retryable(error):
            raise self.retry(exc=error, countdown=1) from error  # type: ignore[attr-defined]  # Celery binds the task
        raise
