"""Old names of Airflow and the names of today: one row each, by the module that had them.

A row is: the old module, the old name, the module of today, the name of today. `*` stands for every
name that has no row, and for the same name. The module `here` is `standins.py`, a class or function
of our own. In place of the last two, a row of `-` says what to write: the name has no successor.
Modules are abbreviated by `PREFIXES`. Rows count only where the interpreter lacks the old name.
"""

PREFIXES = {
    "std": "airflow.providers.standard",
    "sql": "airflow.providers.common.sql",
    "amazon": "airflow.providers.amazon.aws",
    "google": "airflow.providers.google.cloud",
    "azure": "airflow.providers.microsoft.azure",
    "k8s": "airflow.providers.cncf.kubernetes",
    "apache": "airflow.providers.apache",
    "provider": "airflow.providers",
    "contrib": "airflow.contrib",
    "here": "pubsubflow.airflow.inside.legacy.standins",
}

CORE = """
airflow.operators  BashOperator  std.operators.bash  *
airflow.operators  PythonOperator  std.operators.python  *
airflow.operators  BranchPythonOperator  std.operators.python  *
airflow.operators  ShortCircuitOperator  std.operators.python  *
airflow.operators  DummyOperator  std.operators.empty  EmptyOperator
airflow.operators  EmailOperator  provider.smtp.operators.smtp  *
airflow.operators  TriggerDagRunOperator  std.operators.trigger_dagrun  *
airflow.operators  LatestOnlyOperator  std.operators.latest_only  *
airflow.operators.bash_operator  *  std.operators.bash  *
airflow.operators.python_operator  *  std.operators.python  *
airflow.operators.dummy  DummyOperator  std.operators.empty  EmptyOperator
airflow.operators.dummy_operator  DummyOperator  std.operators.empty  EmptyOperator
airflow.operators.empty  DummyOperator  std.operators.empty  EmptyOperator
airflow.operators.dagrun_operator  *  std.operators.trigger_dagrun  *
airflow.operators.dagrun_operator  DagRunOrder  -  give TriggerDagRunOperator a conf={...}
airflow.operators.trigger_dagrun  TriggerDagRunLink  std.operators.trigger_dagrun  *
airflow.operators.email_operator  *  provider.smtp.operators.smtp  *
airflow.operators.latest_only_operator  *  std.operators.latest_only  *
airflow.operators.branch_operator  *  airflow.sdk.bases.branch  *
airflow.operators.check_operator  CheckOperator  sql.operators.sql  SQLCheckOperator
airflow.operators.check_operator  ValueCheckOperator  sql.operators.sql  SQLValueCheckOperator
airflow.operators.check_operator  IntervalCheckOperator  sql.operators.sql  SQLIntervalCheckOperator
airflow.operators.check_operator  ThresholdCheckOperator  sql.operators.sql  SQLThresholdCheckOperator
airflow.operators.sql  *  sql.operators.sql  *
airflow.operators.sql_branch_operator  BranchSQLOperator  sql.operators.sql  *
airflow.operators.sql_branch_operator  BranchSqlOperator  sql.operators.sql  BranchSQLOperator
airflow.operators.subdag  *  -  write a TaskGroup: with TaskGroup("name"): ... in the same DAG
airflow.operators.subdag_operator  *  -  write a TaskGroup: with TaskGroup("name"): ... in the same DAG
airflow.operators.sensors  BaseSensorOperator  airflow.sdk  *
airflow.operators.sensors  ExternalTaskSensor  std.sensors.external_task  *
airflow.operators.sensors  HttpSensor  provider.http.sensors.http  *
airflow.operators.sensors  S3KeySensor  amazon.sensors.s3  *
airflow.operators.sensors  SqlSensor  sql.sensors.sql  *
airflow.operators.sensors  TimeSensor  std.sensors.time  *
airflow.operators.sensors  TimeDeltaSensor  std.sensors.time_delta  *
airflow.sensors  BaseSensorOperator  airflow.sdk  *
airflow.sensors  ExternalTaskSensor  std.sensors.external_task  *
airflow.sensors.base_sensor_operator  *  airflow.sdk.bases.sensor  *
airflow.sensors.date_time_sensor  *  std.sensors.date_time  *
airflow.sensors.external_task  ExternalTaskSensorLink  std.sensors.external_task  ExternalDagLink
airflow.sensors.external_task_sensor  *  std.sensors.external_task  *
airflow.sensors.file_sensor  *  std.sensors.filesystem  *
airflow.sensors.http_sensor  *  provider.http.sensors.http  *
airflow.sensors.s3_key_sensor  *  amazon.sensors.s3  *
airflow.sensors.s3_prefix_sensor  S3PrefixSensor  -  write S3KeySensor(wildcard_match=True)
airflow.sensors.sql  *  sql.sensors.sql  *
airflow.sensors.sql_sensor  *  sql.sensors.sql  *
airflow.sensors.time_delta_sensor  *  std.sensors.time_delta  *
airflow.sensors.smart_sensor  *  -  use a deferrable sensor: deferrable=True
airflow.sensors.hdfs_sensor  *  -  use apache.hdfs.sensors.web_hdfs.WebHdfsSensor
airflow.sensors.hive_partition_sensor  *  apache.hive.sensors.hive_partition  *
airflow.sensors.metastore_partition_sensor  *  apache.hive.sensors.metastore_partition  *
airflow.sensors.named_hive_partition_sensor  *  apache.hive.sensors.named_hive_partition  *
airflow.sensors.web_hdfs_sensor  *  apache.hdfs.sensors.web_hdfs  *
airflow.hooks  BaseHook  airflow.sdk  *
airflow.hooks.base_hook  BaseHook  airflow.sdk  *
airflow.hooks.dbapi  *  sql.hooks.sql  *
airflow.hooks.dbapi_hook  *  sql.hooks.sql  *
airflow.models  XComArg  airflow.sdk  *
airflow.models  BaseOperatorLink  airflow.sdk  *
airflow.models  SlaMiss  -  give the DAG a deadline=DeadlineAlert(...)
airflow.models.baseoperator  BaseOperatorLink  airflow.sdk  *
airflow.models.dag  DagStateChangeCallback  airflow.sdk.definitions.dag  *
airflow.models.dag  ScheduleInterval  airflow.sdk.definitions.dag  ScheduleArg
airflow.models.dag  ScheduleArg  airflow.sdk.definitions.dag  *
airflow.models.mappedoperator  MappedOperator  airflow.sdk.definitions.mappedoperator  *
airflow.models.operator  Operator  airflow.sdk  BaseOperator
airflow.models.taskinstance  Context  airflow.sdk  *
airflow.models.taskmixin  TaskMixin  airflow.sdk.definitions._internal.mixins  DependencyMixin
airflow.models.xcom  LazyXComAccess  airflow.sdk.execution_time.lazy_sequence  LazyXComSequence
airflow.decorators  apply_defaults  here  identity
airflow.decorators.python  python_task  std.decorators.python  *
airflow.decorators.sensor  sensor_task  std.decorators.sensor  *
airflow.decorators.task_group  *  airflow.sdk.definitions.decorators.task_group  *
airflow.datasets  Dataset  airflow.sdk  Asset
airflow.datasets  DatasetAlias  airflow.sdk  AssetAlias
airflow.datasets  DatasetAll  airflow.sdk  AssetAll
airflow.datasets  DatasetAny  airflow.sdk  AssetAny
airflow.datasets.metadata  Metadata  airflow.sdk  *
airflow.assets  Asset  airflow.sdk  *
airflow.assets  AssetAlias  airflow.sdk  *
airflow.assets.metadata  Metadata  airflow.sdk  *
airflow.timetables.datasets  DatasetOrTimeSchedule  here  *
airflow.timetables.simple  DatasetTriggeredTimetable  airflow.timetables.simple  AssetTriggeredTimetable
airflow.lineage  AUTO  -  name the datasets: inlets=[...]
airflow.lineage.entities  File  provider.common.compat.lineage.entities  *
airflow.lineage.entities  Table  provider.common.compat.lineage.entities  *
airflow.lineage.entities  Column  provider.common.compat.lineage.entities  *
airflow.lineage.entities  User  provider.common.compat.lineage.entities  *
airflow.configuration  get  here  configuration_get
airflow.configuration  getboolean  here  configuration_getboolean
airflow.configuration  getint  here  configuration_getint
airflow.exceptions  RemovedInAirflow3Warning  builtins  DeprecationWarning
airflow.exceptions  AirflowDagInconsistent  airflow.exceptions  AirflowException
airflow.compat.functools  cache  functools  *
airflow.compat.functools  cached_property  functools  *
airflow.template.templater  *  airflow.sdk.definitions._internal.templater  *
airflow.triggers.external_task  TaskStateTrigger  std.triggers.external_task  WorkflowTrigger
airflow.utils.compression  *  -  use gzip and bz2 of the standard library
airflow.utils.dag_cycle_tester  test_cycle  airflow.utils.dag_cycle_tester  check_cycle
airflow.utils.dates  days_ago  here  *
airflow.utils.dates  parse_execution_date  airflow.sdk.timezone  parse
airflow.utils.dates  date_range  -  write a list of datetimes
airflow.utils.dates  round_time  -  use pendulum's start_of("hour") and the like
airflow.utils.db  create_session  airflow.utils.session  *
airflow.utils.db  provide_session  airflow.utils.session  *
airflow.utils.decorators  apply_defaults  here  identity
airflow.utils.edgemodifier  EdgeModifier  airflow.sdk.definitions.edges  *
airflow.utils.file  TemporaryDirectory  tempfile  *
airflow.utils.file  mkdirs  here  *
airflow.utils.helpers  chain  airflow.sdk  *
airflow.utils.helpers  cross_downstream  airflow.sdk  *
airflow.utils.json  AirflowJsonEncoder  json  JSONEncoder
airflow.utils.log.secrets_masker  mask_secret  airflow.sdk.log  *
airflow.utils.log.secrets_masker  redact  airflow.sdk.log  *
airflow.utils.module_loading  import_string  airflow.sdk._shared.module_loading  *
airflow.utils.operator_helpers  context_to_airflow_vars  airflow.sdk.execution_time.context  *
airflow.utils.python_virtualenv  *  std.utils.python_virtualenv  *
airflow.utils.timezone  make_aware  airflow.sdk._shared.timezones.timezone  *
airflow.utils.timezone  is_localized  airflow.sdk._shared.timezones.timezone  *
airflow.utils.weekday  WeekDay  std.utils.weekday  *
airflow.kubernetes.secret  Secret  k8s.secret  *
airflow.kubernetes.pod  Port  here  Port
airflow.kubernetes.volume  Volume  here  Volume
airflow.kubernetes.volume_mount  VolumeMount  here  VolumeMount
airflow.executors.celery_executor  *  provider.celery.executors.celery_executor  *
airflow.api.common.experimental.trigger_dag  *  -  use TriggerDagRunOperator
airflow.api.common.experimental.get_task_instance  *  -  use ti.get_task_states(...)
airflow.www.app  *  -  leave it out: a page of Airflow's is not served here
airflow.www.utils  *  -  leave it out: a page of Airflow's is not served here
airflow.macros.hive  *  apache.hive.macros.hive  *
"""  # noqa: E501

TRANSFERS_AND_DATABASES = """
airflow.operators.http_operator  SimpleHttpOperator  provider.http.operators.http  HttpOperator
provider.http.operators.http  SimpleHttpOperator  provider.http.operators.http  HttpOperator
airflow.hooks.http_hook  *  provider.http.hooks.http  *
airflow.operators.postgres_operator  PostgresOperator  here  *
provider.postgres.operators.postgres  PostgresOperator  here  *
airflow.hooks.postgres_hook  *  provider.postgres.hooks.postgres  *
airflow.operators.mysql_operator  MySqlOperator  here  *
provider.mysql.operators.mysql  MySqlOperator  here  *
airflow.hooks.mysql_hook  *  provider.mysql.hooks.mysql  *
airflow.operators.sqlite_operator  SqliteOperator  here  *
provider.sqlite.operators.sqlite  SqliteOperator  here  *
airflow.hooks.sqlite_hook  *  provider.sqlite.hooks.sqlite  *
airflow.operators.mssql_operator  MsSqlOperator  here  *
provider.microsoft.mssql.operators.mssql  MsSqlOperator  here  *
airflow.hooks.mssql_hook  *  provider.microsoft.mssql.hooks.mssql  *
airflow.operators.oracle_operator  OracleOperator  here  *
provider.oracle.operators.oracle  OracleOperator  here  *
airflow.hooks.oracle_hook  *  provider.oracle.hooks.oracle  *
airflow.operators.jdbc_operator  JdbcOperator  here  *
provider.jdbc.operators.jdbc  JdbcOperator  here  *
airflow.hooks.jdbc_hook  *  provider.jdbc.hooks.jdbc  *
provider.snowflake.operators.snowflake  SnowflakeOperator  here  *
contrib.operators.snowflake_operator  SnowflakeOperator  here  *
contrib.hooks.snowflake_hook  *  provider.snowflake.hooks.snowflake  *
provider.trino.operators.trino  TrinoOperator  here  *
amazon.operators.redshift_sql  RedshiftSQLOperator  here  *
amazon.operators.redshift  RedshiftSQLOperator  here  *
airflow.operators.docker_operator  *  provider.docker.operators.docker  *
contrib.operators.docker_swarm_operator  *  provider.docker.operators.docker_swarm  *
airflow.hooks.docker_hook  *  provider.docker.hooks.docker  *
airflow.operators.papermill_operator  *  provider.papermill.operators.papermill  *
airflow.operators.slack_operator  SlackAPIPostOperator  provider.slack.operators.slack  *
airflow.operators.slack_operator  SlackAPIOperator  provider.slack.operators.slack  *
airflow.hooks.slack_hook  SlackHook  provider.slack.hooks.slack  *
contrib.operators.slack_webhook_operator  *  provider.slack.operators.slack_webhook  *
contrib.hooks.slack_webhook_hook  *  provider.slack.hooks.slack_webhook  *
contrib.operators.ssh_operator  *  provider.ssh.operators.ssh  *
contrib.hooks.ssh_hook  *  provider.ssh.hooks.ssh  *
contrib.operators.sftp_operator  *  provider.sftp.operators.sftp  *
contrib.hooks.sftp_hook  *  provider.sftp.hooks.sftp  *
contrib.sensors.sftp_sensor  *  provider.sftp.sensors.sftp  *
contrib.hooks.ftp_hook  *  provider.ftp.hooks.ftp  *
contrib.sensors.ftp_sensor  *  provider.ftp.sensors.ftp  *
contrib.operators.winrm_operator  *  provider.microsoft.winrm.operators.winrm  *
contrib.hooks.winrm_hook  *  provider.microsoft.winrm.hooks.winrm  *
contrib.operators.jira_operator  *  provider.atlassian.jira.operators.jira  *
contrib.hooks.jira_hook  *  provider.atlassian.jira.hooks.jira  *
contrib.sensors.jira_sensor  *  provider.atlassian.jira.sensors.jira  *
provider.jira.operators.jira  *  provider.atlassian.jira.operators.jira  *
provider.jira.hooks.jira  *  provider.atlassian.jira.hooks.jira  *
contrib.hooks.datadog_hook  *  provider.datadog.hooks.datadog  *
contrib.sensors.datadog_sensor  *  provider.datadog.sensors.datadog  *
contrib.hooks.mongo_hook  *  provider.mongo.hooks.mongo  *
contrib.sensors.mongo_sensor  *  provider.mongo.sensors.mongo  *
contrib.hooks.redis_hook  *  provider.redis.hooks.redis  *
contrib.operators.redis_publish_operator  *  provider.redis.operators.redis_publish  *
contrib.sensors.redis_key_sensor  *  provider.redis.sensors.redis_key  *
contrib.hooks.fs_hook  FSHook  std.hooks.filesystem  *
contrib.sensors.file_sensor  *  std.sensors.filesystem  *
contrib.sensors.python_sensor  *  std.sensors.python  *
contrib.sensors.bash_sensor  *  std.sensors.bash  *
contrib.sensors.weekday_sensor  *  std.sensors.weekday  *
contrib.operators.databricks_operator  *  provider.databricks.operators.databricks  *
contrib.hooks.databricks_hook  *  provider.databricks.hooks.databricks  *
contrib.operators.spark_submit_operator  *  apache.spark.operators.spark_submit  *
contrib.operators.spark_sql_operator  *  apache.spark.operators.spark_sql  *
contrib.operators.spark_jdbc_operator  *  apache.spark.operators.spark_jdbc  *
contrib.hooks.spark_submit_hook  *  apache.spark.hooks.spark_submit  *
contrib.operators.druid_operator  *  apache.druid.operators.druid  *
airflow.hooks.druid_hook  *  apache.druid.hooks.druid  *
airflow.operators.hive_operator  *  apache.hive.operators.hive  *
airflow.operators.hive_to_mysql  HiveToMySqlTransfer  apache.hive.transfers.hive_to_mysql  HiveToMySqlOperator
airflow.operators.mysql_to_hive  MySqlToHiveTransfer  apache.hive.transfers.mysql_to_hive  MySqlToHiveOperator
airflow.hooks.hive_hooks  *  apache.hive.hooks.hive  *
airflow.hooks.webhdfs_hook  *  apache.hdfs.hooks.webhdfs  *
contrib.operators.qubole_operator  *  -  the provider was given up: use HttpOperator with Qubole's API
contrib.operators.kubernetes_pod_operator  *  k8s.operators.pod  *
k8s.operators.kubernetes_pod  *  k8s.operators.pod  *
contrib.kubernetes.secret  Secret  k8s.secret  *
contrib.kubernetes.pod  Port  here  Port
contrib.kubernetes.volume  Volume  here  Volume
contrib.kubernetes.volume_mount  VolumeMount  here  VolumeMount
"""  # noqa: E501

CLOUDS = """
airflow.hooks.S3_hook  *  amazon.hooks.s3  *
airflow.operators.s3_file_transform_operator  *  amazon.operators.s3  *
airflow.operators.s3_to_redshift_operator  S3ToRedshiftTransfer  amazon.transfers.s3_to_redshift  S3ToRedshiftOperator
airflow.operators.redshift_to_s3_operator  RedshiftToS3Transfer  amazon.transfers.redshift_to_s3  RedshiftToS3Operator
contrib.hooks.aws_hook  AwsHook  amazon.hooks.base_aws  AwsBaseHook
contrib.hooks.aws_dynamodb_hook  AwsDynamoDBHook  amazon.hooks.dynamodb  DynamoDBHook
contrib.hooks.aws_lambda_hook  AwsLambdaHook  amazon.hooks.lambda_function  LambdaHook
contrib.hooks.aws_athena_hook  AWSAthenaHook  amazon.hooks.athena  AthenaHook
contrib.hooks.aws_sns_hook  AwsSnsHook  amazon.hooks.sns  SnsHook
contrib.hooks.aws_sqs_hook  SQSHook  amazon.hooks.sqs  SqsHook
contrib.hooks.emr_hook  *  amazon.hooks.emr  *
contrib.hooks.redshift_hook  *  amazon.hooks.redshift_cluster  *
contrib.hooks.sagemaker_hook  *  amazon.hooks.sagemaker  *
contrib.operators.aws_athena_operator  AWSAthenaOperator  amazon.operators.athena  AthenaOperator
contrib.operators.awsbatch_operator  AWSBatchOperator  amazon.operators.batch  BatchOperator
contrib.operators.ecs_operator  ECSOperator  amazon.operators.ecs  EcsRunTaskOperator
contrib.operators.emr_add_steps_operator  *  amazon.operators.emr  *
contrib.operators.emr_create_job_flow_operator  *  amazon.operators.emr  *
contrib.operators.emr_terminate_job_flow_operator  *  amazon.operators.emr  *
contrib.operators.s3_list_operator  *  amazon.operators.s3  *
contrib.operators.s3_copy_object_operator  *  amazon.operators.s3  *
contrib.operators.s3_delete_objects_operator  *  amazon.operators.s3  *
contrib.operators.s3_to_sftp_operator  *  amazon.transfers.s3_to_sftp  *
contrib.operators.sftp_to_s3_operator  *  amazon.transfers.sftp_to_s3  *
contrib.operators.mongo_to_s3  MongoToS3Operator  amazon.transfers.mongo_to_s3  *
contrib.operators.dynamodb_to_s3  *  amazon.transfers.dynamodb_to_s3  *
contrib.operators.sagemaker_training_operator  *  amazon.operators.sagemaker  *
contrib.operators.sagemaker_endpoint_operator  *  amazon.operators.sagemaker  *
contrib.operators.sagemaker_transform_operator  *  amazon.operators.sagemaker  *
contrib.operators.sns_publish_operator  *  amazon.operators.sns  *
contrib.operators.aws_sqs_publish_operator  SQSPublishOperator  amazon.operators.sqs  SqsPublishOperator
contrib.sensors.aws_athena_sensor  *  amazon.sensors.athena  *
contrib.sensors.aws_sqs_sensor  SQSSensor  amazon.sensors.sqs  SqsSensor
contrib.sensors.emr_job_flow_sensor  *  amazon.sensors.emr  *
contrib.sensors.emr_step_sensor  *  amazon.sensors.emr  *
contrib.sensors.sagemaker_training_sensor  *  amazon.sensors.sagemaker  *
amazon.hooks.dynamodb  AwsDynamoDBHook  amazon.hooks.dynamodb  DynamoDBHook
amazon.hooks.lambda_function  AwsLambdaHook  amazon.hooks.lambda_function  LambdaHook
amazon.hooks.athena  AWSAthenaHook  amazon.hooks.athena  AthenaHook
amazon.hooks.redshift  *  amazon.hooks.redshift_cluster  *
amazon.operators.athena  AWSAthenaOperator  amazon.operators.athena  AthenaOperator
amazon.operators.aws_lambda  *  amazon.operators.lambda_function  *
amazon.operators.batch  AwsBatchOperator  amazon.operators.batch  BatchOperator
amazon.operators.ecs  ECSOperator  amazon.operators.ecs  EcsRunTaskOperator
amazon.operators.ecs  EcsOperator  amazon.operators.ecs  EcsRunTaskOperator
amazon.operators.emr_add_steps  *  amazon.operators.emr  *
amazon.operators.emr_containers  EMRContainerOperator  amazon.operators.emr  EmrContainerOperator
amazon.operators.emr_create_job_flow  *  amazon.operators.emr  *
amazon.operators.emr_terminate_job_flow  *  amazon.operators.emr  *
amazon.operators.glue  AwsGlueJobOperator  amazon.operators.glue  GlueJobOperator
amazon.operators.glue_crawler  AwsGlueCrawlerOperator  amazon.operators.glue_crawler  GlueCrawlerOperator
amazon.operators.lambda_function  AwsLambdaInvokeFunctionOperator  amazon.operators.lambda_function  LambdaInvokeFunctionOperator
amazon.operators.s3_bucket  *  amazon.operators.s3  *
amazon.operators.s3_copy_object  *  amazon.operators.s3  *
amazon.operators.s3_delete_objects  *  amazon.operators.s3  *
amazon.operators.s3_file_transform  *  amazon.operators.s3  *
amazon.operators.s3_list  *  amazon.operators.s3  *
amazon.operators.sagemaker_endpoint  *  amazon.operators.sagemaker  *
amazon.operators.sagemaker_training  *  amazon.operators.sagemaker  *
amazon.sensors.emr_job_flow  *  amazon.sensors.emr  *
amazon.sensors.emr_step  *  amazon.sensors.emr  *
amazon.sensors.s3_key  *  amazon.sensors.s3  *
amazon.sensors.s3_prefix  S3PrefixSensor  -  write S3KeySensor(wildcard_match=True)
airflow.operators.gcs_to_s3  GoogleCloudStorageToS3Operator  amazon.transfers.gcs_to_s3  GCSToS3Operator
contrib.hooks.bigquery_hook  *  google.hooks.bigquery  *
contrib.hooks.gcs_hook  GoogleCloudStorageHook  google.hooks.gcs  GCSHook
contrib.hooks.gcp_api_base_hook  GoogleCloudBaseHook  provider.google.common.hooks.base_google  GoogleBaseHook
contrib.operators.bigquery_operator  BigQueryOperator  -  write BigQueryInsertJobOperator(configuration={"query": ...})
contrib.operators.bigquery_check_operator  *  google.operators.bigquery  *
contrib.operators.bigquery_to_gcs  BigQueryToCloudStorageOperator  google.transfers.bigquery_to_gcs  BigQueryToGCSOperator
contrib.operators.gcs_to_bq  GoogleCloudStorageToBigQueryOperator  google.transfers.gcs_to_bigquery  GCSToBigQueryOperator
contrib.operators.gcs_to_gcs  GoogleCloudStorageToGoogleCloudStorageOperator  google.transfers.gcs_to_gcs  GCSToGCSOperator
contrib.operators.file_to_gcs  FileToGoogleCloudStorageOperator  google.transfers.local_to_gcs  LocalFilesystemToGCSOperator
contrib.operators.mysql_to_gcs  MySqlToGoogleCloudStorageOperator  google.transfers.mysql_to_gcs  MySQLToGCSOperator
contrib.operators.postgres_to_gcs_operator  PostgresToGoogleCloudStorageOperator  google.transfers.postgres_to_gcs  PostgresToGCSOperator
contrib.operators.s3_to_gcs_operator  S3ToGoogleCloudStorageOperator  google.transfers.s3_to_gcs  S3ToGCSOperator
contrib.operators.dataproc_operator  DataprocClusterCreateOperator  google.operators.dataproc  DataprocCreateClusterOperator
contrib.operators.dataproc_operator  DataprocClusterDeleteOperator  google.operators.dataproc  DataprocDeleteClusterOperator
contrib.operators.dataproc_operator  *  -  write DataprocSubmitJobOperator(job={...})
contrib.operators.pubsub_operator  PubSubPublishOperator  google.operators.pubsub  PubSubPublishMessageOperator
contrib.sensors.bigquery_sensor  BigQueryTableSensor  google.sensors.bigquery  BigQueryTableExistenceSensor
contrib.sensors.gcs_sensor  GoogleCloudStorageObjectSensor  google.sensors.gcs  GCSObjectExistenceSensor
contrib.sensors.gcs_sensor  GoogleCloudStoragePrefixSensor  google.sensors.gcs  GCSObjectsWithPrefixExistenceSensor
contrib.sensors.pubsub_sensor  PubSubPullSensor  google.sensors.pubsub  *
google.operators.bigquery  BigQueryExecuteQueryOperator  -  write BigQueryInsertJobOperator(configuration={"query": ...})
google.sensors.gcs  GCSObjectsWtihPrefixExistenceSensor  google.sensors.gcs  GCSObjectsWithPrefixExistenceSensor
contrib.hooks.wasb_hook  *  azure.hooks.wasb  *
contrib.hooks.azure_data_lake_hook  *  azure.hooks.data_lake  *
contrib.hooks.azure_cosmos_hook  *  azure.hooks.cosmos  *
contrib.operators.file_to_wasb  FileToWasbOperator  azure.transfers.local_to_wasb  LocalFilesystemToWasbOperator
contrib.operators.wasb_delete_blob_operator  *  azure.operators.wasb_delete_blob  *
contrib.sensors.wasb_sensor  *  azure.sensors.wasb  *
azure.hooks.azure_data_factory  *  azure.hooks.data_factory  *
azure.operators.azure_container_instances  *  azure.operators.container_instances  *
"""  # noqa: E501

ROWS = CORE + TRANSFERS_AND_DATABASES + CLOUDS
