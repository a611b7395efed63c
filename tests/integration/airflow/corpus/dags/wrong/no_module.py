from airflow import DAG

import a_library_of_the_team

dag = DAG("no_module")
