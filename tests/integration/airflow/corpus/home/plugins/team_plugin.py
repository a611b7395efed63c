from airflow.plugins_manager import AirflowPlugin


def shout(text):
    return text.upper()


class TeamPlugin(AirflowPlugin):
    name = "team"
    macros = [shout]
