from django.apps import AppConfig


class WebConfig(AppConfig):
    name = "agentstate.web"
    label = "web"
