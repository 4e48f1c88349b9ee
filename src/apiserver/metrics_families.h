/*
 * The families of metrics, in order of their names: METRIC(id, name, type, stability level, buckets, help).
 * SLI, ALPHA_SLI instead of a level: stable or alpha, and at /metrics/slis. TIMING: alpha, as upstream's timing histograms are called. NONE: not of Kubernetes' own, no level in the help.
 */
#define B(...) ((const double[]){__VA_ARGS__}), sizeof((const double[]){__VA_ARGS__}) / sizeof(double)
#define POWERS(first, factor, n) ((const double[]){first, factor}), -(n) /* exponential: n of them */
#define NO_BUCKETS NULL, 0
#define ADMISSION_BUCKETS B(0.005, 0.025, 0.1, 0.5, 1, 2.5)
#define DEFAULT_BUCKETS B(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10) /* of Prometheus' client */
#define WAIT_BUCKETS B(0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30)
#define REQUEST_BUCKETS B(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
#define SLI_BUCKETS B(0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 45, 60)
METRIC(DISCOVERY_AGGREGATED, "aggregator_discovery_aggregation_count_total", COUNTER, ALPHA, NO_BUCKETS, "How often an aggregated discovery document was made.")
METRIC(DISCOVERY_NOPEER, "aggregator_discovery_nopeer_requests_total", COUNTER, ALPHA, NO_BUCKETS,
       "Requests for aggregated discovery that asked for this server's alone.")
METRIC(DISCOVERY_PEER_HITS, "aggregator_discovery_peer_aggregated_cache_hits_total", COUNTER, ALPHA, NO_BUCKETS,
       "Answers that were kept of discovery beside other servers: none, they are not asked.")
METRIC(DISCOVERY_PEER_MISSES, "aggregator_discovery_peer_aggregated_cache_misses_total", COUNTER, ALPHA, NO_BUCKETS,
       "Answers that were made of discovery beside other servers: none, they are not asked.")
METRIC(APISERVICE_DOWN, "aggregator_unavailable_apiservice", GAUGE, ALPHA, NO_BUCKETS, "APIServices, and whether they cannot be reached, by name.")
METRIC(APISERVICE_LOST, "aggregator_unavailable_apiservice_total", COUNTER, ALPHA, NO_BUCKETS,
       "How often an APIService became unavailable, by name and reason.")
METRIC(RATCHETING, "apiextensions_apiserver_validation_ratcheting_seconds", HISTOGRAM, ALPHA, POWERS(0.00001, 4, 10),
       "Time to compare new custom resources with old ones, so that what did not change need not be valid.")
METRIC(CRD_OPENAPI_V2, "apiextensions_openapi_v2_regeneration_count", COUNTER, ALPHA, NO_BUCKETS,
       "Changes of the OpenAPI v2 document, by the definition that made them and how.")
METRIC(CRD_OPENAPI_V3, "apiextensions_openapi_v3_regeneration_count", COUNTER, ALPHA, NO_BUCKETS,
       "Changes of OpenAPI v3 documents, by group, version, the definition that made them and how.")
METRIC(ADMISSION_PLUGIN, "apiserver_admission_controller_admission_duration_seconds", HISTOGRAM, STABLE, ADMISSION_BUCKETS,
       "Time in one admission plugin, by its name, the operation and whether it refused.")
METRIC(MATCH_ERRORS, "apiserver_admission_match_condition_evaluation_errors_total", COUNTER, ALPHA, NO_BUCKETS,
       "Requests for which match conditions of a webhook or policy came to errors, by its name.")
METRIC(MATCH_TIME, "apiserver_admission_match_condition_evaluation_seconds", HISTOGRAM, ALPHA, B(0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25),
       "Time in the match conditions of a webhook or policy, by its name.")
METRIC(MATCH_EXCLUSIONS, "apiserver_admission_match_condition_exclusions_total", COUNTER, ALPHA, NO_BUCKETS,
       "Requests that match conditions kept from a webhook or policy, by its name.")
METRIC(ADMISSION_STEP, "apiserver_admission_step_admission_duration_seconds", HISTOGRAM, STABLE, ADMISSION_BUCKETS,
       "Time in all admission plugins of one step, by the operation and whether it was refused.")
METRIC(STEP_SUMMARY, "apiserver_admission_step_admission_duration_seconds_summary", SUMMARY, ALPHA, NO_BUCKETS,
       "Time in all admission plugins of one step, by the operation and whether it was refused.")
METRIC(ADMISSION_WEBHOOK, "apiserver_admission_webhook_admission_duration_seconds", HISTOGRAM, STABLE,
       B(0.005, 0.025, 0.1, 0.5, 1, 2.5, 10, 25), "Time in one admission webhook, by its name, the operation and whether it refused.")
METRIC(WEBHOOK_FAIL_OPEN, "apiserver_admission_webhook_fail_open_count", COUNTER, ALPHA, NO_BUCKETS,
       "Failures of an admission webhook that were ignored, by its name.")
METRIC(WEBHOOK_REJECTIONS, "apiserver_admission_webhook_rejection_count", COUNTER, ALPHA, NO_BUCKETS,
       "Requests that an admission webhook or its failure refused, by its name.")
METRIC(WEBHOOK_REQUESTS, "apiserver_admission_webhook_request_total", COUNTER, ALPHA, NO_BUCKETS,
       "Questions to an admission webhook, by its name and what came of them.")
METRIC(AUDIT_ERRORS, "apiserver_audit_error_total", COUNTER, ALPHA, NO_BUCKETS, "Audit events that were not delivered, by plugin.")
METRIC(AUDIT_EVENTS, "apiserver_audit_event_total", COUNTER, ALPHA, NO_BUCKETS, "Audit events that were made.")
METRIC(AUDIT_LEVELS, "apiserver_audit_level_total", COUNTER, ALPHA, NO_BUCKETS, "Requests by the level that the audit policy gives them.")
METRIC(AUDIT_REJECTED, "apiserver_audit_requests_rejected_total", COUNTER, ALPHA, NO_BUCKETS,
       "Requests that were refused because their audit event could not be written.")
METRIC(AUTHN_RELOAD_TIME, "apiserver_authentication_config_controller_automatic_reload_last_timestamp_seconds", GAUGE, BETA, NO_BUCKETS,
       "When the authentication configuration was last read again, by outcome.")
METRIC(AUTHN_RELOADS, "apiserver_authentication_config_controller_automatic_reloads_total", COUNTER, BETA, NO_BUCKETS,
       "How often the authentication configuration was read again, by outcome.")
METRIC(AUTHN_CONFIG, "apiserver_authentication_config_controller_last_config_info", GAUGE, ALPHA, NO_BUCKETS,
       "The authentication configuration that is in use, by its digest.")
METRIC(JWKS_INFO, "apiserver_authentication_jwt_authenticator_jwks_fetch_last_key_set_info", GAUGE, ALPHA, NO_BUCKETS,
       "The keys of an issuer of tokens that were fetched last, by their digest.")
METRIC(JWKS_TIME, "apiserver_authentication_jwt_authenticator_jwks_fetch_last_timestamp_seconds", GAUGE, ALPHA, NO_BUCKETS,
       "When the keys of an issuer of tokens were last fetched, by result.")
METRIC(JWT_TIME, "apiserver_authentication_jwt_authenticator_latency_seconds", HISTOGRAM, ALPHA,
       B(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10), "Time to judge a token that is not remembered, by its issuer and result.")
METRIC(AUTHZ_RELOAD_TIME, "apiserver_authorization_config_controller_automatic_reload_last_timestamp_seconds", GAUGE, BETA, NO_BUCKETS,
       "When the authorization configuration was last read again, by outcome.")
METRIC(AUTHZ_RELOADS, "apiserver_authorization_config_controller_automatic_reloads_total", COUNTER, BETA, NO_BUCKETS,
       "How often the authorization configuration was read again, by outcome.")
METRIC(AUTHZ_CONFIG, "apiserver_authorization_config_controller_last_config_info", GAUGE, ALPHA, NO_BUCKETS,
       "The authorization configuration that is in use, by its digest.")
METRIC(AUTHZ_DECISIONS, "apiserver_authorization_decisions_total", COUNTER, ALPHA, NO_BUCKETS,
       "What authorizers allowed and denied, by their type and name.")
METRIC(AUTHZ_MATCH_ERRORS, "apiserver_authorization_match_condition_evaluation_errors_total", COUNTER, ALPHA, NO_BUCKETS,
       "Requests for which match conditions of an authorizer came to errors.")
METRIC(AUTHZ_MATCH_TIME, "apiserver_authorization_match_condition_evaluation_seconds", HISTOGRAM, ALPHA,
       B(0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25), "Time in the match conditions of an authorizer.")
METRIC(AUTHZ_MATCH_EXCLUSIONS, "apiserver_authorization_match_condition_exclusions_total", COUNTER, ALPHA, NO_BUCKETS,
       "Requests that match conditions kept from an authorizer.")
METRIC(AUTHZ_WEBHOOK_TIME, "apiserver_authorization_webhook_duration_seconds", HISTOGRAM, ALPHA, DEFAULT_BUCKETS,
       "Time until an authorization webhook answered, by its name and how that went.")
METRIC(AUTHZ_FAIL_OPEN, "apiserver_authorization_webhook_evaluations_fail_open_total", COUNTER, ALPHA, NO_BUCKETS,
       "Requests that went on to the next authorizer because a webhook gave no answer.")
METRIC(AUTHZ_WEBHOOK_EVALUATIONS, "apiserver_authorization_webhook_evaluations_total", COUNTER, ALPHA, NO_BUCKETS,
       "Questions to an authorization webhook, by its name and how they went.")
METRIC(CACHE_LIST_FETCHED, "apiserver_cache_list_fetched_objects_total", COUNTER, ALPHA, NO_BUCKETS,
       "Objects that were looked at for lists, by resource and index.")
METRIC(CACHE_LIST_RETURNED, "apiserver_cache_list_returned_objects_total", COUNTER, ALPHA, NO_BUCKETS,
       "Objects that lists answered with, by resource.")
METRIC(CACHE_LISTS, "apiserver_cache_list_total", COUNTER, ALPHA, NO_BUCKETS, "Lists that the watch cache answered, by resource and index.")
METRIC(CEL_COMPILATION, "apiserver_cel_compilation_duration_seconds", HISTOGRAM, BETA, DEFAULT_BUCKETS,
       "Time to compile the rules of one schema.")
METRIC(CEL_EVALUATION, "apiserver_cel_evaluation_duration_seconds", HISTOGRAM, BETA, DEFAULT_BUCKETS,
       "Time to evaluate the rules of one schema.")
METRIC(CSR_HONORED, "apiserver_certificates_registry_csr_honored_duration_total", COUNTER, ALPHA, NO_BUCKETS,
       "Certificates that are valid about as long as was asked for, by signer.")
METRIC(CSR_REQUESTED, "apiserver_certificates_registry_csr_requested_duration_total", COUNTER, ALPHA, NO_BUCKETS,
       "Certificates that were asked for with a duration and issued, by signer.")
METRIC(CERT_EXPIRATION, "apiserver_client_certificate_expiration_seconds", HISTOGRAM, ALPHA,
       B(0, 1800, 3600, 7200, 21600, 43200, 86400, 172800, 345600, 604800, 2592000, 7776000, 15552000, 31104000),
       "How long the certificates that clients show are still good.")
METRIC(IP_REPAIR_ERRORS, "apiserver_clusterip_repair_ip_errors_total", COUNTER, ALPHA, NO_BUCKETS,
       "What was wrong with addresses of Services, by kind.")
METRIC(IP_REPAIR_FAILURES, "apiserver_clusterip_repair_reconcile_errors_total", COUNTER, ALPHA, NO_BUCKETS,
       "Repairs of the addresses of Services that failed.")
METRIC(CONVERSION_TIME, "apiserver_conversion_webhook_duration_seconds", HISTOGRAM, ALPHA,
       B(0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 45, 60), "Time of a question to a conversion webhook, by what came of it.")
METRIC(CONVERSIONS, "apiserver_conversion_webhook_request_total", COUNTER, ALPHA, NO_BUCKETS,
       "Questions to conversion webhooks, by what came of them.")
METRIC(CRD_CONVERSION_TIME, "apiserver_crd_conversion_webhook_duration_seconds", HISTOGRAM, ALPHA, POWERS(0.001, 2, 15),
       "Time of a question to a conversion webhook, by its definition and the versions.")
METRIC(INFLIGHT, "apiserver_current_inflight_requests", GAUGE, STABLE, NO_BUCKETS,
       "Most requests that were being worked on at a time within the last second, by kind.")
METRIC(INQUEUE, "apiserver_current_inqueue_requests", GAUGE, ALPHA, NO_BUCKETS,
       "Most requests that waited at a time within the last second, by kind.")
METRIC(ENCRYPTION_RELOAD_TIME, "apiserver_encryption_config_controller_automatic_reload_last_timestamp_seconds", GAUGE, ALPHA, NO_BUCKETS,
       "When the encryption configuration was last read again, by outcome.")
METRIC(ENCRYPTION_RELOADS, "apiserver_encryption_config_controller_automatic_reloads_total", COUNTER, ALPHA, NO_BUCKETS,
       "How often the encryption configuration was read again, by outcome.")
METRIC(ENCRYPTION_CONFIG, "apiserver_encryption_config_controller_last_config_info", GAUGE, ALPHA, NO_BUCKETS,
       "The encryption configuration that is in use, by its digest.")
METRIC(DEK_CACHE, "apiserver_envelope_encryption_dek_source_cache_size", GAUGE, ALPHA, NO_BUCKETS, "Keys that a KMS plugin unwrapped and are kept.")
METRIC(KMS_BAD_KEY_ID, "apiserver_envelope_encryption_invalid_key_id_from_status_total", COUNTER, ALPHA, NO_BUCKETS,
       "Key ids of a KMS plugin that were none.")
METRIC(KMS_KEY_ID_TIME, "apiserver_envelope_encryption_key_id_hash_last_timestamp_seconds", GAUGE, ALPHA, NO_BUCKETS,
       "When a key id was last used, by its digest.")
METRIC(KMS_KEY_ID_STATUS, "apiserver_envelope_encryption_key_id_hash_status_last_timestamp_seconds", GAUGE, ALPHA, NO_BUCKETS,
       "When a KMS plugin last told a key id, by its digest.")
METRIC(KMS_KEY_IDS, "apiserver_envelope_encryption_key_id_hash_total", COUNTER, ALPHA, NO_BUCKETS, "How often a key id was used, by its digest.")
METRIC(KMS_LATENCY, "apiserver_envelope_encryption_kms_operations_latency_seconds", HISTOGRAM, ALPHA, POWERS(0.0001, 2, 20),
       "Time of calls to a KMS plugin.")
METRIC(FLOW_EXECUTING, "apiserver_flowcontrol_current_executing_requests", GAUGE, BETA, NO_BUCKETS,
       "Requests that are being worked on, by flow schema and priority level.")
METRIC(FLOW_SEATS, "apiserver_flowcontrol_current_executing_seats", GAUGE, BETA, NO_BUCKETS,
       "Seats that requests hold, by flow schema and priority level.")
METRIC(FLOW_INQUEUE, "apiserver_flowcontrol_current_inqueue_requests", GAUGE, BETA, NO_BUCKETS,
       "Requests that wait, by flow schema and priority level.")
METRIC(FLOW_INQUEUE_SEATS, "apiserver_flowcontrol_current_inqueue_seats", GAUGE, ALPHA, NO_BUCKETS,
       "Seats that requests wait for, by flow schema and priority level.")
METRIC(FLOW_LIMIT, "apiserver_flowcontrol_current_limit_seats", GAUGE, ALPHA, NO_BUCKETS, "Seats that a priority level can have at this moment.")
METRIC(FLOW_CURRENT_R, "apiserver_flowcontrol_current_r", GAUGE, ALPHA, NO_BUCKETS, "A priority level's virtual time: seat-seconds that each of its queues in use was given.")
METRIC(FLOW_DEMAND, "apiserver_flowcontrol_demand_seats", HISTOGRAM, TIMING, B(0.2, 0.4, 0.6, 0.8, 1, 1.2, 1.4, 1.7, 2, 2.8, 4, 6),
       "Seats that are used or waited for beside those of the priority level, at each nanosecond.")
METRIC(FLOW_DEMAND_AVERAGE, "apiserver_flowcontrol_demand_seats_average", GAUGE, ALPHA, NO_BUCKETS,
       "Seats that were used or waited for, on average of the last ten seconds that are over.")
METRIC(FLOW_DEMAND_HIGH, "apiserver_flowcontrol_demand_seats_high_watermark", GAUGE, ALPHA, NO_BUCKETS, "The most of them.")
METRIC(FLOW_DEMAND_SMOOTHED, "apiserver_flowcontrol_demand_seats_smoothed", GAUGE, ALPHA, NO_BUCKETS,
       "Average and deviation of them, which falls slowly where they fall.")
METRIC(FLOW_DEMAND_STDEV, "apiserver_flowcontrol_demand_seats_stdev", GAUGE, ALPHA, NO_BUCKETS, "Their standard deviation.")
METRIC(FLOW_DISPATCH_R, "apiserver_flowcontrol_dispatch_r", GAUGE, ALPHA, NO_BUCKETS, "The virtual time when a request last left a queue.")
METRIC(FLOW_DISPATCHED, "apiserver_flowcontrol_dispatched_requests_total", COUNTER, BETA, NO_BUCKETS,
       "Requests that were let through, by flow schema and priority level.")
METRIC(FLOW_LATEST_S, "apiserver_flowcontrol_latest_s", GAUGE, ALPHA, NO_BUCKETS, "The virtual time at which that request was due.")
METRIC(FLOW_LOWER, "apiserver_flowcontrol_lower_limit_seats", GAUGE, ALPHA, NO_BUCKETS, "Seats that a priority level keeps.")
METRIC(FLOW_NEXT_DISCOUNTED_S, "apiserver_flowcontrol_next_discounted_s_bounds", GAUGE, ALPHA, NO_BUCKETS,
       "The bounds of next_s less what of each queue was being worked on.")
METRIC(FLOW_NEXT_S, "apiserver_flowcontrol_next_s_bounds", GAUGE, ALPHA, NO_BUCKETS,
       "The least and the greatest virtual time at which the queues that waited were due when a request last left one.")
METRIC(FLOW_NOMINAL, "apiserver_flowcontrol_nominal_limit_seats", GAUGE, BETA, NO_BUCKETS, "Seats of a priority level of its own.")
METRIC(FLOW_REQUEST_USE, "apiserver_flowcontrol_priority_level_request_utilization", HISTOGRAM, TIMING,
       B(0, 0.001, 0.003, 0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1),
       "Requests that wait or are worked on beside how many may, by priority level, at each nanosecond.")
METRIC(FLOW_SEAT_USE, "apiserver_flowcontrol_priority_level_seat_utilization", HISTOGRAM, TIMING,
       B(0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1), "Seats that are used beside those of the priority level, at each nanosecond.")
METRIC(FLOW_READ_WRITE, "apiserver_flowcontrol_read_vs_write_current_requests", HISTOGRAM, TIMING,
       B(0, 0.001, 0.01, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1),
       "Reads and writes that wait or are worked on beside how many may, at each nanosecond.")
METRIC(FLOW_REJECTED, "apiserver_flowcontrol_rejected_requests_total", COUNTER, BETA, NO_BUCKETS,
       "Requests that were refused, by flow schema, priority level and reason.")
METRIC(FLOW_NO_ROOM, "apiserver_flowcontrol_request_dispatch_no_accommodation_total", COUNTER, ALPHA, NO_BUCKETS,
       "How often the next request could not leave its queue, as there were too few seats.")
METRIC(FLOW_EXECUTION, "apiserver_flowcontrol_request_execution_seconds", HISTOGRAM, ALPHA,
       B(0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30), "Time that requests held their seats, by flow schema and priority level.")
METRIC(FLOW_QUEUE_LENGTH, "apiserver_flowcontrol_request_queue_length_after_enqueue", HISTOGRAM, ALPHA, B(0, 10, 25, 50, 100, 250, 500, 1000),
       "Requests in a queue when one has come to it.")
METRIC(FLOW_WAIT, "apiserver_flowcontrol_request_wait_duration_seconds", HISTOGRAM, BETA, WAIT_BUCKETS,
       "Time that requests waited for seats, by flow schema, priority level and whether they got them.")
METRIC(FLOW_FAIR_FRACTION, "apiserver_flowcontrol_seat_fair_frac", GAUGE, ALPHA, NO_BUCKETS,
       "What part of its target each priority level could have were all seats lent by need.")
METRIC(FLOW_TARGET, "apiserver_flowcontrol_target_seats", GAUGE, ALPHA, NO_BUCKETS, "Seats that a priority level would have by need.")
METRIC(FLOW_UPPER, "apiserver_flowcontrol_upper_limit_seats", GAUGE, ALPHA, NO_BUCKETS, "Most seats a priority level may have.")
METRIC(FLOW_WATCHERS, "apiserver_flowcontrol_watch_count_samples", HISTOGRAM, ALPHA, B(0, 1, 10, 100, 1000, 10000),
       "Watches that a write concerns, by flow schema and priority level.")
METRIC(FLOW_ESTIMATED, "apiserver_flowcontrol_work_estimated_seats", HISTOGRAM, ALPHA, B(1, 2, 4, 8, 16, 32, 64, 100),
       "Seats that requests were thought to need, by flow schema and priority level.")
METRIC(IMPERSONATION_TIME, "apiserver_impersonation_attempts_duration_seconds", HISTOGRAM, ALPHA, POWERS(0.001, 2, 15),
       "Time to tell whether somebody may act as another, by mode and outcome.")
METRIC(IMPERSONATIONS, "apiserver_impersonation_attempts_total", COUNTER, ALPHA, NO_BUCKETS, "Requests to act as another, by mode and outcome.")
METRIC(IMPERSONATION_CHECK_TIME, "apiserver_impersonation_authorization_attempts_duration_seconds", HISTOGRAM, ALPHA, POWERS(0.001, 2, 15),
       "Time of the questions to authorizers about that, by mode and outcome.")
METRIC(IMPERSONATION_CHECKS, "apiserver_impersonation_authorization_attempts_total", COUNTER, ALPHA, NO_BUCKETS,
       "Questions to authorizers about that, by mode and outcome.")
METRIC(INIT_EVENTS, "apiserver_init_events_total", COUNTER, ALPHA, NO_BUCKETS, "Events that watches began with, by resource.")
METRIC(AGGREGATED_SHA1, "apiserver_kube_aggregator_x509_insecure_sha1_total", COUNTER, ALPHA, NO_BUCKETS,
       "Aggregated servers that were not asked because their certificate is signed by SHA-1.")
METRIC(AGGREGATED_NO_SAN, "apiserver_kube_aggregator_x509_missing_san_total", COUNTER, ALPHA, NO_BUCKETS,
       "Aggregated servers that were not asked because their certificate names no server but in its common name.")
METRIC(LONG_RUNNING, "apiserver_longrunning_requests", GAUGE, STABLE, NO_BUCKETS, "Watches, streams and proxied requests that are open.")
METRIC(MUTATION_TIME, "apiserver_mutating_admission_policy_check_duration_seconds", HISTOGRAM, ALPHA, B(0.0000005, 0.001, 0.01, 0.1, 1),
       "Time of a mutation, by policy, binding and what came of it.")
METRIC(MUTATIONS, "apiserver_mutating_admission_policy_check_total", COUNTER, ALPHA, NO_BUCKETS,
       "Mutations of policies, by policy, binding and what came of it.")
METRIC(PORT_REPAIR_ERRORS, "apiserver_nodeport_repair_port_errors_total", COUNTER, ALPHA, NO_BUCKETS, "What was wrong with node ports, by kind.")
METRIC(PORT_REPAIR_FAILURES, "apiserver_nodeport_repair_reconcile_errors_total", COUNTER, ALPHA, NO_BUCKETS, "Repairs of node ports that failed.")
METRIC(ABORTS, "apiserver_request_aborts_total", COUNTER, ALPHA, NO_BUCKETS, "Requests whose answers broke off.")
METRIC(BODY_SIZES, "apiserver_request_body_size_bytes", HISTOGRAM, ALPHA,
       B(5e4, 15e4, 25e4, 35e4, 45e4, 55e4, 65e4, 75e4, 85e4, 95e4, 105e4, 115e4, 125e4, 135e4, 145e4, 155e4, 165e4, 175e4, 185e4, 195e4, 205e4,
	 215e4, 225e4, 235e4, 245e4, 255e4, 265e4, 275e4, 285e4, 295e4, 305e4), "Bytes of the bodies of writes, by resource.")
METRIC(DURATION, "apiserver_request_duration_seconds", HISTOGRAM, STABLE, REQUEST_BUCKETS, "Time of requests.")
METRIC(FILTER_TIME, "apiserver_request_filter_duration_seconds", HISTOGRAM, ALPHA,
       B(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 5, 10, 15, 30), "Time of the steps before a request's own, by step.")
METRIC(SLI_DURATION, "apiserver_request_sli_duration_seconds", HISTOGRAM, ALPHA, SLI_BUCKETS,
       "Time of requests without that of webhooks and without waiting for seats.")
METRIC(TERMINATIONS, "apiserver_request_terminations_total", COUNTER, ALPHA, NO_BUCKETS,
       "Requests that were ended for the server's sake: too many, or too slow.")
METRIC(TIMESTAMP_TIME, "apiserver_request_timestamp_comparison_time", HISTOGRAM, ALPHA, B(0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 5),
       "Time to tell whether an update changes more than the times of managedFields, by what came of it.")
METRIC(REQUESTS, "apiserver_request_total", COUNTER, STABLE, NO_BUCKETS, "Requests that were answered.")
METRIC(DEPRECATED, "apiserver_requested_deprecated_apis", GAUGE, STABLE, NO_BUCKETS, "Deprecated APIs that somebody has asked for.")
METRIC(OBJECTS, "apiserver_resource_objects", GAUGE, ALPHA, NO_BUCKETS, "Objects that are stored, by resource.")
METRIC(OBJECT_BYTES, "apiserver_resource_size_estimate_bytes", GAUGE, ALPHA, NO_BUCKETS, "Bytes of the objects that are stored, by resource.")
METRIC(SIZES, "apiserver_response_sizes", HISTOGRAM, STABLE, POWERS(1000, 10, 7), "Bytes of answers to reads.")
METRIC(SELF_REQUESTS, "apiserver_selfrequest_total", COUNTER, ALPHA, NO_BUCKETS, "Requests of who calls itself kube-apiserver.")
METRIC(DATA_KEY_TIME, "apiserver_storage_data_key_generation_duration_seconds", HISTOGRAM, ALPHA, POWERS(5e-6, 2, 14), "Time to make a key for a KMS plugin to wrap.")
METRIC(DATA_KEY_FAILURES, "apiserver_storage_data_key_generation_failures_total", COUNTER, ALPHA, NO_BUCKETS, "Keys that could not be made.")
METRIC(DECODE_ERRORS, "apiserver_storage_decode_errors_total", COUNTER, ALPHA, NO_BUCKETS, "Stored objects that could not be read, by resource.")
METRIC(KMS_MISSES, "apiserver_storage_envelope_transformation_cache_misses_total", COUNTER, ALPHA, NO_BUCKETS,
       "How often a KMS plugin had to unwrap a key.")
METRIC(EVENTS_RECEIVED, "apiserver_storage_events_received_total", COUNTER, BETA, NO_BUCKETS, "Changes that the store told of, by resource.")
METRIC(STORAGE_LIST_EVALUATED, "apiserver_storage_list_evaluated_objects_total", COUNTER, ALPHA, NO_BUCKETS,
       "Objects that were tested for that, by resource.")
METRIC(STORAGE_LIST_FETCHED, "apiserver_storage_list_fetched_objects_total", COUNTER, ALPHA, NO_BUCKETS,
       "Objects that were read for that, by resource.")
METRIC(STORAGE_LIST_RETURNED, "apiserver_storage_list_returned_objects_total", COUNTER, ALPHA, NO_BUCKETS,
       "Objects that came of it, by resource.")
METRIC(STORAGE_LISTS, "apiserver_storage_list_total", COUNTER, ALPHA, NO_BUCKETS, "How often the watch cache was filled from the store, by resource.")
METRIC(STORAGE_OBJECTS, "apiserver_storage_objects", GAUGE, STABLE, NO_BUCKETS,
       "(Deprecated since 1.34.0) Objects that are stored; see apiserver_resource_objects.")
METRIC(STORAGE_SIZE, "apiserver_storage_size_bytes", GAUGE, STABLE, NO_BUCKETS, "Bytes of the store's file.")
METRIC(TRANSFORM_TIME, "apiserver_storage_transformation_duration_seconds", HISTOGRAM, ALPHA, POWERS(5e-6, 2, 25),
       "Time to encrypt or decrypt a value.")
METRIC(TRANSFORMS, "apiserver_storage_transformation_operations_total", COUNTER, ALPHA, NO_BUCKETS, "Values that were encrypted or decrypted.")
METRIC(TERMINATED_WATCHERS, "apiserver_terminated_watchers_total", COUNTER, ALPHA, NO_BUCKETS,
       "Watches that ended because whoever reads them was too slow, by resource.")
METRIC(TLS_ERRORS, "apiserver_tls_handshake_errors_total", COUNTER, ALPHA, NO_BUCKETS, "Connections whose TLS handshake failed.")
METRIC(POLICY_TIME, "apiserver_validating_admission_policy_check_duration_seconds", HISTOGRAM, BETA, B(0.0000005, 0.001, 0.01, 0.1, 1),
       "Time of a policy's validations, by policy, binding and what came of it.")
METRIC(POLICY_CHECKS, "apiserver_validating_admission_policy_check_total", COUNTER, BETA, NO_BUCKETS,
       "Validations of policies, by policy, binding and what came of it.")
METRIC(DECLARATIVE_MISMATCH, "apiserver_validation_declarative_validation_mismatch_total", COUNTER, BETA, NO_BUCKETS,
       "Objects that two kinds of validation judge differently: none, there is one.")
METRIC(DECLARATIVE_PANIC, "apiserver_validation_declarative_validation_panic_total", COUNTER, BETA, NO_BUCKETS,
       "Panics of declarative validation: none.")
METRIC(CACHE_CONSISTENT_READS, "apiserver_watch_cache_consistent_read_total", COUNTER, ALPHA, NO_BUCKETS,
       "Lists of the newest state that the watch cache answered, by resource.")
METRIC(CACHE_DISPATCHED, "apiserver_watch_cache_events_dispatched_total", COUNTER, ALPHA, NO_BUCKETS,
       "Changes that the watch cache showed to its watches, by resource.")
METRIC(CACHE_RECEIVED, "apiserver_watch_cache_events_received_total", COUNTER, ALPHA, NO_BUCKETS, "Changes that the watch cache took up, by resource.")
METRIC(CACHE_INITIALIZATIONS, "apiserver_watch_cache_initializations_total", COUNTER, ALPHA, NO_BUCKETS,
       "How often a watch cache was filled anew, by resource.")
METRIC(CACHE_READ_WAIT, "apiserver_watch_cache_read_wait_seconds", HISTOGRAM, ALPHA,
       B(0.005, 0.025, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 1.25, 1.5, 2, 3), "Time that reads waited for the watch cache to see a revision, by resource.")
METRIC(CACHE_REVISION, "apiserver_watch_cache_resource_version", GAUGE, ALPHA, NO_BUCKETS, "The revision that the watch cache has seen, by resource.")
METRIC(WATCH_SIZES, "apiserver_watch_events_sizes", HISTOGRAM, ALPHA, POWERS(1024, 2, 8), "Bytes of events sent to watches, by resource.")
METRIC(WATCH_EVENTS, "apiserver_watch_events_total", COUNTER, ALPHA, NO_BUCKETS, "Events sent to watches, by resource.")
METRIC(WATCH_LIST, "apiserver_watch_list_duration_seconds", HISTOGRAM, BETA,
       B(0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1, 2, 4, 6, 8, 10, 15, 20, 30, 45, 60), "Time until a watch had sent its initial events.")
METRIC(WEBHOOK_SHA1, "apiserver_webhooks_x509_insecure_sha1_total", COUNTER, ALPHA, NO_BUCKETS,
       "Webhooks that were not asked because their certificate is signed by SHA-1.")
METRIC(WEBHOOK_NO_SAN, "apiserver_webhooks_x509_missing_san_total", COUNTER, ALPHA, NO_BUCKETS,
       "Webhooks that were not asked because their certificate names no server but in its common name.")
METRIC(STREAMS, "apiserver_websocket_streaming_requests_total", COUNTER, ALPHA, NO_BUCKETS,
       "Exec, attach and port forwarding that was passed on to a kubelet, by which of them.")
METRIC(USERS, "authenticated_user_requests", COUNTER, ALPHA, NO_BUCKETS, "Requests whose user is known, by a few names and kinds of names.")
METRIC(AUTHN_ATTEMPTS, "authentication_attempts", COUNTER, ALPHA, NO_BUCKETS, "Requests by how their authentication came out.")
METRIC(AUTHN_TIME, "authentication_duration_seconds", HISTOGRAM, ALPHA, POWERS(0.001, 2, 15), "Time of authentication, by how it came out.")
METRIC(TOKEN_CACHE_ACTIVE, "authentication_token_cache_active_fetch_count", GAUGE, ALPHA, NO_BUCKETS,
       "Tokens that are being judged, and requests that wait for that.")
METRIC(TOKEN_CACHE_FETCHES, "authentication_token_cache_fetch_total", COUNTER, ALPHA, NO_BUCKETS,
       "Tokens that were judged because they were not remembered, by how that went.")
METRIC(TOKEN_CACHE_TIME, "authentication_token_cache_request_duration_seconds", HISTOGRAM, ALPHA, DEFAULT_BUCKETS,
       "Time to tell whose a token is, by whether it was remembered.")
METRIC(TOKEN_CACHE_REQUESTS, "authentication_token_cache_request_total", COUNTER, ALPHA, NO_BUCKETS,
       "Tokens that were shown, by whether they were remembered.")
METRIC(AUTHZ_ATTEMPTS, "authorization_attempts_total", COUNTER, ALPHA, NO_BUCKETS, "Requests by how their authorization came out.")
METRIC(AUTHZ_TIME, "authorization_duration_seconds", HISTOGRAM, ALPHA, POWERS(0.001, 2, 15), "Time of authorization, by how it came out.")
METRIC(UNEXPECTED, "cardinality_enforcement_unexpected_categorizations_total", COUNTER, ALPHA, NO_BUCKETS,
       "Values of labels that are not among those that a flag allows.")
METRIC(DISABLED, "disabled_metrics_total", COUNTER, BETA, NO_BUCKETS, "Families that a flag has switched off.")
METRIC(ETCD_LEASES, "etcd_lease_object_counts", HISTOGRAM, ALPHA, B(10, 50, 100, 500, 1000, 2500, 5000),
       "Objects of a lease of the store when the next one is begun.")
METRIC(STORE_TIME, "etcd_request_duration_seconds", HISTOGRAM, ALPHA, REQUEST_BUCKETS, "Time of calls to the store, by operation and resource.")
METRIC(STORE_ERRORS, "etcd_request_errors_total", COUNTER, ALPHA, NO_BUCKETS, "Calls to the store that failed, by operation and resource.")
METRIC(STORE_REQUESTS, "etcd_requests_total", COUNTER, ALPHA, NO_BUCKETS, "Calls to the store, by operation and resource.")
METRIC(FIELD_VALIDATION, "field_validation_request_duration_seconds", HISTOGRAM, ALPHA, SLI_BUCKETS, "Time of requests by their fieldValidation.")
METRIC(GRPC_HANDLED, "grpc_client_handled_total", COUNTER, NONE, NO_BUCKETS, "Calls to etcd that have ended, by code.")
METRIC(GRPC_RECEIVED, "grpc_client_msg_received_total", COUNTER, NONE, NO_BUCKETS, "Messages that came in such calls.")
METRIC(GRPC_SENT, "grpc_client_msg_sent_total", COUNTER, NONE, NO_BUCKETS, "Messages that went out in such calls.")
METRIC(GRPC_STARTED, "grpc_client_started_total", COUNTER, NONE, NO_BUCKETS, "Calls to etcd that were begun.")
METRIC(HIDDEN, "hidden_metrics_total", COUNTER, BETA, NO_BUCKETS, "Families that are not shown because they are deprecated.")
METRIC(IPS_ALLOCATED, "kube_apiserver_clusterip_allocator_allocated_ips", GAUGE, ALPHA, NO_BUCKETS, "Addresses that Services have, by range.")
METRIC(IP_TIME, "kube_apiserver_clusterip_allocator_allocation_duration_seconds", HISTOGRAM, ALPHA, DEFAULT_BUCKETS,
       "Time to find an address for a Service, by range.")
METRIC(IP_FAILURES, "kube_apiserver_clusterip_allocator_allocation_errors_total", COUNTER, ALPHA, NO_BUCKETS,
       "Addresses that could not be given to Services, by range and whether they were asked for.")
METRIC(IP_ALLOCATIONS, "kube_apiserver_clusterip_allocator_allocation_total", COUNTER, ALPHA, NO_BUCKETS,
       "Addresses given to Services, by range and whether they were asked for.")
METRIC(IPS_AVAILABLE, "kube_apiserver_clusterip_allocator_available_ips", GAUGE, ALPHA, NO_BUCKETS, "Addresses that are left for Services, by range.")
METRIC(PORTS_ALLOCATED, "kube_apiserver_nodeport_allocator_allocated_ports", GAUGE, ALPHA, NO_BUCKETS, "Node ports that Services have.")
METRIC(PORT_FAILURES, "kube_apiserver_nodeport_allocator_allocation_errors_total", COUNTER, ALPHA, NO_BUCKETS,
       "Node ports that could not be given to Services, by whether they were asked for.")
METRIC(PORT_ALLOCATIONS, "kube_apiserver_nodeport_allocator_allocation_total", COUNTER, ALPHA, NO_BUCKETS,
       "Node ports given to Services, by whether they were asked for.")
METRIC(PORTS_AVAILABLE, "kube_apiserver_nodeport_allocator_available_ports", GAUGE, ALPHA, NO_BUCKETS, "Node ports that are left for Services.")
METRIC(LOG_TLS_FAILURES, "kube_apiserver_pod_logs_backend_tls_failure_total", COUNTER, ALPHA, NO_BUCKETS,
       "Logs that could not be read because the kubelet's certificate is not of its CA.")
METRIC(LOG_TLS_USAGE, "kube_apiserver_pod_logs_insecure_backend_total", COUNTER, ALPHA, NO_BUCKETS,
       "Logs that were asked for, by whether the kubelet's certificate mattered.")
METRIC(BUILD_INFO, "kubernetes_build_info", GAUGE, BETA, NO_BUCKETS, "What was built, in labels; 1.")
METRIC(FEATURES, "kubernetes_feature_enabled", GAUGE, BETA, NO_BUCKETS, "Features that can be switched, and whether they are on.")
METRIC(HEALTH, "kubernetes_healthcheck", GAUGE, SLI, NO_BUCKETS, "How a health check last came out.")
METRIC(HEALTH_TOTAL, "kubernetes_healthchecks_total", COUNTER, SLI, NO_BUCKETS, "How often a health check came out so.")
METRIC(PODSEC_ERRORS, "pod_security_errors_total", COUNTER, ALPHA, NO_BUCKETS, "What kept pod security from judging as it was told.")
METRIC(PODSEC_EVALUATIONS, "pod_security_evaluations_total", COUNTER, ALPHA, NO_BUCKETS, "Judgements of pods by a level of pod security.")
METRIC(PODSEC_EXEMPTIONS, "pod_security_exemptions_total", COUNTER, ALPHA, NO_BUCKETS, "Pods and templates that pod security does not look at.")
METRIC(CPU, "process_cpu_seconds_total", COUNTER, NONE, NO_BUCKETS, "Seconds of processor time.")
METRIC(MAX_FDS, "process_max_fds", GAUGE, NONE, NO_BUCKETS, "Most file descriptors there may be.")
METRIC(NET_RECEIVED, "process_network_receive_bytes_total", COUNTER, NONE, NO_BUCKETS, "Bytes that came over the network.")
METRIC(NET_SENT, "process_network_transmit_bytes_total", COUNTER, NONE, NO_BUCKETS, "Bytes that went over the network.")
METRIC(OPEN_FDS, "process_open_fds", GAUGE, NONE, NO_BUCKETS, "File descriptors that are open.")
METRIC(RSS, "process_resident_memory_bytes", GAUGE, NONE, NO_BUCKETS, "Bytes of memory in use.")
METRIC(STARTED, "process_start_time_seconds", GAUGE, NONE, NO_BUCKETS, "When the process began, in seconds since 1970.")
METRIC(SLI_STARTED, "process_start_time_seconds", GAUGE, ALPHA_SLI, NO_BUCKETS, "When the process began, in seconds since 1970.")
METRIC(VSIZE, "process_virtual_memory_bytes", GAUGE, NONE, NO_BUCKETS, "Bytes of address space in use.")
METRIC(VSIZE_MAX, "process_virtual_memory_max_bytes", GAUGE, NONE, NO_BUCKETS, "Most bytes of address space there may be.")
METRIC(REGISTERED, "registered_metrics_total", COUNTER, BETA, NO_BUCKETS, "Families of metrics, by stability level.")
METRIC(SA_LEGACY_INVALID, "serviceaccount_invalid_legacy_auto_token_uses_total", COUNTER, ALPHA, NO_BUCKETS,
       "Uses of tokens from Secrets that are marked as invalid.")
METRIC(SA_LEGACY_AUTO, "serviceaccount_legacy_auto_token_uses_total", COUNTER, ALPHA, NO_BUCKETS, "Uses of tokens that once were made of themselves.")
METRIC(SA_LEGACY_MANUAL, "serviceaccount_legacy_manual_token_uses_total", COUNTER, ALPHA, NO_BUCKETS, "Uses of tokens from Secrets that somebody made.")
METRIC(SA_LEGACY, "serviceaccount_legacy_tokens_total", COUNTER, ALPHA, NO_BUCKETS, "Uses of tokens from Secrets.")
METRIC(SA_STALE, "serviceaccount_stale_tokens_total", COUNTER, ALPHA, NO_BUCKETS, "Uses of bound tokens that should have been replaced.")
METRIC(SA_VALID, "serviceaccount_valid_tokens_total", COUNTER, ALPHA, NO_BUCKETS, "Uses of bound tokens.")
METRIC(VERSION_INFO, "version_info", GAUGE, ALPHA, NO_BUCKETS, "What versions the server is compatible with, in labels; 1.")
METRIC(CACHE_CAPACITY, "watch_cache_capacity", GAUGE, ALPHA, NO_BUCKETS, "Changes that the watch cache has room for, by resource.")
METRIC(CACHE_SHRUNK, "watch_cache_capacity_decrease_total", COUNTER, ALPHA, NO_BUCKETS, "How often that became less, by resource.")
METRIC(CACHE_GROWN, "watch_cache_capacity_increase_total", COUNTER, ALPHA, NO_BUCKETS, "How often that became more, by resource.")
#undef B
#undef POWERS
#undef NO_BUCKETS
#undef ADMISSION_BUCKETS
#undef DEFAULT_BUCKETS
#undef WAIT_BUCKETS
#undef REQUEST_BUCKETS
#undef SLI_BUCKETS
