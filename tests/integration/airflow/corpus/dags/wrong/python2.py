from airflow import DAG

print "a dag of Python 2"
