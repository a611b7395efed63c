from airflow.sdk import DAG, ObjectStoragePath, task

base = ObjectStoragePath("file:///tmp/lake")

with DAG("object_storage_3", schedule="@daily"):

    @task
    def write(ds=None):
        (base / f"{ds}.txt").write_text("x")

    write()
