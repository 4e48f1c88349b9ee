/*
 * The functions of upstream's environment at v1.36 (apiserver/pkg/cel/environment/base.go): cel-go's standard
 * library, optional types, strings version 2, sets, lists version 3, two-variable comprehensions, and Kubernetes' own
 * regex, lists, url, quantity, ip, cidr, format, semver, authorizer and jsonpatch.
 */
#include <pthread.h>
#include <stdlib.h>
#include "base/map.h"
#include "cel/ast.h"
#include "cel/lib.h"

struct row {
	const char *fn;
	const char *id;
	const char *sig; /* "A.(int)->string" is a member, "(A,int)->string" is not */
	cel_fn impl;
	uint8_t cost, op;
};

#define COMPARISON(fn, name, impl)                                                                 \
	{fn, name "_bool", "(bool,bool)->bool", impl}, {fn, name "_int64", "(int,int)->bool", impl},   \
	{fn, name "_int64_double", "(int,double)->bool", impl}, {fn, name "_int64_uint64", "(int,uint)->bool", impl}, \
	{fn, name "_uint64", "(uint,uint)->bool", impl}, {fn, name "_uint64_double", "(uint,double)->bool", impl}, \
	{fn, name "_uint64_int64", "(uint,int)->bool", impl}, {fn, name "_double", "(double,double)->bool", impl}, \
	{fn, name "_double_int64", "(double,int)->bool", impl}, {fn, name "_double_uint64", "(double,uint)->bool", impl}, \
	{fn, name "_string", "(string,string)->bool", impl, COST_COMPARE},                             \
	{fn, name "_bytes", "(bytes,bytes)->bool", impl, COST_COMPARE},                                \
	{fn, name "_timestamp", "(ts,ts)->bool", impl}, {fn, name "_duration", "(dur,dur)->bool", impl}

#define TIME_PART(fn, id, impl)                                                                    \
	{fn, id, "ts.()->int", impl}, {fn, id "_with_tz", "ts.(string)->int", impl}

/* isSorted, min, max, sort: over lists of comparable types */
#define OVER(fn, t, id, result, impl, cost) {fn, id, "list(" t ").()->" result, impl, cost}
#define SORTED(t) OVER("isSorted", t, "list_" t "_is_sorted_bool", "bool", lib_is_sorted, COST_LIST_TRAVERSE)
#define MAX(t, n) OVER("max", t, "list_" n "_max_" n, t, lib_list_max, COST_LIST_TRAVERSE)
#define MIN(t, n) OVER("min", t, "list_" n "_min_" n, t, lib_list_min, COST_LIST_TRAVERSE)
#define SORT(t, n) OVER("sort", t, "list_" n "_sort", "list(" t ")", lib_sort, COST_SORT)
#define SORT_BY(t, n)                                                                              \
	{"@sortByAssociatedKeys", "list_" n "_sortByAssociatedKeys", "list(A).(list(" t "))->list(A)", lib_sort_by, COST_SORT_BY}
#define FORMAT(n) {"format." #n, "format." #n, "()->Format", lib_format_##n}

static const struct row rows[] = {
	{"_?_:_", "conditional", "(bool,A,A)->A", NULL, COST_CONDITIONAL, OP_COND},
	{"_&&_", "logical_and", "(bool,bool)->bool", NULL, COST_LOGIC, OP_AND},
	{"_||_", "logical_or", "(bool,bool)->bool", NULL, COST_LOGIC, OP_OR},
	{"!_", "logical_not", "(bool)->bool", lib_not},
	{"@not_strictly_false", "not_strictly_false", "(bool)->bool", NULL, COST_ONE, OP_NOT_STRICTLY_FALSE},
	{"_==_", "equals", "(A,A)->bool", NULL, COST_EQUALS, OP_EQ},
	{"_!=_", "not_equals", "(A,A)->bool", NULL, COST_COMPARE, OP_NE},
	{"_+_", "add_bytes", "(bytes,bytes)->bytes", lib_add, COST_ADD_STRING},
	{"_+_", "add_double", "(double,double)->double", lib_add},
	{"_+_", "add_duration_duration", "(dur,dur)->dur", lib_add},
	{"_+_", "add_duration_timestamp", "(dur,ts)->ts", lib_add},
	{"_+_", "add_timestamp_duration", "(ts,dur)->ts", lib_add},
	{"_+_", "add_int64", "(int,int)->int", lib_add},
	{"_+_", "add_list", "(list(A),list(A))->list(A)", lib_add, COST_ADD_LIST},
	{"_+_", "add_string", "(string,string)->string", lib_add, COST_ADD_STRING},
	{"_+_", "add_uint64", "(uint,uint)->uint", lib_add},
	{"_/_", "divide_double", "(double,double)->double", lib_div},
	{"_/_", "divide_int64", "(int,int)->int", lib_div},
	{"_/_", "divide_uint64", "(uint,uint)->uint", lib_div},
	{"_%_", "modulo_int64", "(int,int)->int", lib_mod},
	{"_%_", "modulo_uint64", "(uint,uint)->uint", lib_mod},
	{"_*_", "multiply_double", "(double,double)->double", lib_mul},
	{"_*_", "multiply_int64", "(int,int)->int", lib_mul},
	{"_*_", "multiply_uint64", "(uint,uint)->uint", lib_mul},
	{"-_", "negate_double", "(double)->double", lib_neg},
	{"-_", "negate_int64", "(int)->int", lib_neg},
	{"_-_", "subtract_double", "(double,double)->double", lib_sub},
	{"_-_", "subtract_duration_duration", "(dur,dur)->dur", lib_sub},
	{"_-_", "subtract_int64", "(int,int)->int", lib_sub},
	{"_-_", "subtract_timestamp_duration", "(ts,dur)->ts", lib_sub},
	{"_-_", "subtract_timestamp_timestamp", "(ts,ts)->dur", lib_sub},
	{"_-_", "subtract_uint64", "(uint,uint)->uint", lib_sub},
	COMPARISON("_<_", "less", lib_lt),
	COMPARISON("_<=_", "less_equals", lib_le),
	COMPARISON("_>_", "greater", lib_gt),
	COMPARISON("_>=_", "greater_equals", lib_ge),
	{"_[_]", "index_list", "(list(A),int)->A", NULL, COST_INDEX_LIST, OP_INDEX},
	{"_[_]", "index_map", "(map(A,B),A)->B", NULL, COST_INDEX_MAP, OP_INDEX},
	{"_[_]", "optional_list_index_int", "(opt(list(A)),int)->opt(A)", NULL, COST_ONE, OP_INDEX},
	{"_[_]", "optional_map_index_value", "(opt(map(A,B)),A)->opt(B)", NULL, COST_ONE, OP_INDEX},
	{"_[?_]", "list_optindex_optional_int", "(list(A),int)->opt(A)", NULL, COST_ONE, OP_OPT_INDEX},
	{"_[?_]", "optional_list_optindex_optional_int", "(opt(list(A)),int)->opt(A)", NULL, COST_ONE, OP_OPT_INDEX},
	{"_[?_]", "map_optindex_optional_value", "(map(A,B),A)->opt(B)", NULL, COST_ONE, OP_OPT_INDEX},
	{"_[?_]", "optional_map_optindex_optional_value", "(opt(map(A,B)),A)->opt(B)", NULL, COST_ONE, OP_OPT_INDEX},
	{"_?._", "select_optional_field", "(dyn,string)->opt(A)", NULL, COST_ONE, OP_OPT_SELECT},
	{"@in", "in_list", "(A,list(A))->bool", lib_in, COST_IN_LIST},
	{"@in", "in_map", "(A,map(A,B))->bool", lib_in},
	{"size", "size_bytes", "(bytes)->int", lib_size},
	{"size", "bytes_size", "bytes.()->int", lib_size},
	{"size", "size_list", "(list(A))->int", lib_size},
	{"size", "list_size", "list(A).()->int", lib_size},
	{"size", "size_map", "(map(A,B))->int", lib_size},
	{"size", "map_size", "map(A,B).()->int", lib_size},
	{"size", "size_string", "(string)->int", lib_size},
	{"size", "string_size", "string.()->int", lib_size},
	{"type", "type", "(A)->type(A)", lib_type},
	{"dyn", "to_dyn", "(A)->dyn", lib_dyn},
	{"bool", "bool_to_bool", "(bool)->bool", lib_dyn},
	{"bool", "string_to_bool", "(string)->bool", lib_to_bool},
	{"bytes", "bytes_to_bytes", "(bytes)->bytes", lib_dyn},
	{"bytes", "string_to_bytes", "(string)->bytes", lib_to_bytes, COST_TO_BYTES},
	{"double", "double_to_double", "(double)->double", lib_dyn},
	{"double", "int64_to_double", "(int)->double", lib_to_double},
	{"double", "string_to_double", "(string)->double", lib_to_double},
	{"double", "uint64_to_double", "(uint)->double", lib_to_double},
	{"duration", "duration_to_duration", "(dur)->dur", lib_dyn},
	{"duration", "int64_to_duration", "(int)->dur", lib_to_duration},
	{"duration", "string_to_duration", "(string)->dur", lib_to_duration},
	{"int", "int64_to_int64", "(int)->int", lib_dyn},
	{"int", "double_to_int64", "(double)->int", lib_to_int},
	{"int", "duration_to_int64", "(dur)->int", lib_to_int},
	{"int", "string_to_int64", "(string)->int", lib_to_int},
	{"int", "timestamp_to_int64", "(ts)->int", lib_to_int},
	{"int", "uint64_to_int64", "(uint)->int", lib_to_int},
	{"string", "string_to_string", "(string)->string", lib_dyn},
	{"string", "bool_to_string", "(bool)->string", lib_to_string},
	{"string", "bytes_to_string", "(bytes)->string", lib_to_string, COST_FROM_BYTES},
	{"string", "double_to_string", "(double)->string", lib_to_string},
	{"string", "duration_to_string", "(dur)->string", lib_to_string},
	{"string", "int64_to_string", "(int)->string", lib_to_string},
	{"string", "timestamp_to_string", "(ts)->string", lib_to_string},
	{"string", "uint64_to_string", "(uint)->string", lib_to_string},
	{"timestamp", "timestamp_to_timestamp", "(ts)->ts", lib_dyn},
	{"timestamp", "int64_to_timestamp", "(int)->ts", lib_to_timestamp},
	{"timestamp", "string_to_timestamp", "(string)->ts", lib_to_timestamp},
	{"uint", "uint64_to_uint64", "(uint)->uint", lib_dyn},
	{"uint", "double_to_uint64", "(double)->uint", lib_to_uint},
	{"uint", "int64_to_uint64", "(int)->uint", lib_to_uint},
	{"uint", "string_to_uint64", "(string)->uint", lib_to_uint},
	{"contains", "contains_string", "string.(string)->bool", lib_contains, COST_CONTAINS},
	{"endsWith", "ends_with_string", "string.(string)->bool", lib_ends_with, COST_AFFIX},
	{"startsWith", "starts_with_string", "string.(string)->bool", lib_starts_with, COST_AFFIX},
	{"matches", "matches", "(string,string)->bool", lib_matches},
	{"matches", "matches_string", "string.(string)->bool", lib_matches, COST_MATCHES},
	TIME_PART("getFullYear", "timestamp_to_year", lib_year),
	TIME_PART("getMonth", "timestamp_to_month", lib_month),
	TIME_PART("getDayOfYear", "timestamp_to_day_of_year", lib_day_of_year),
	TIME_PART("getDayOfMonth", "timestamp_to_day_of_month", lib_day_of_month),
	TIME_PART("getDate", "timestamp_to_day_of_month_1_based", lib_date),
	TIME_PART("getDayOfWeek", "timestamp_to_day_of_week", lib_day_of_week),
	TIME_PART("getHours", "timestamp_to_hours", lib_hours),
	{"getHours", "duration_to_hours", "dur.()->int", lib_hours},
	TIME_PART("getMinutes", "timestamp_to_minutes", lib_minutes),
	{"getMinutes", "duration_to_minutes", "dur.()->int", lib_minutes},
	TIME_PART("getSeconds", "timestamp_to_seconds", lib_seconds),
	{"getSeconds", "duration_to_seconds", "dur.()->int", lib_seconds},
	TIME_PART("getMilliseconds", "timestamp_to_milliseconds", lib_milliseconds),
	{"getMilliseconds", "duration_to_milliseconds", "dur.()->int", lib_milliseconds},
	/* optional types */
	{"optional.of", "optional_of", "(A)->opt(A)", lib_optional_of},
	{"optional.ofNonZeroValue", "optional_ofNonZeroValue", "(A)->opt(A)", lib_optional_nonzero},
	{"optional.none", "optional_none", "()->opt(A)", lib_optional_none},
	{"value", "optional_value", "opt(A).()->A", lib_optional_value},
	{"hasValue", "optional_hasValue", "opt(A).()->bool", lib_optional_has},
	{"or", "optional_or_optional", "opt(A).(opt(A))->opt(A)", NULL, COST_ONE, OP_OR_OPTIONAL},
	{"orValue", "optional_orValue_value", "opt(A).(A)->A", NULL, COST_ONE, OP_OR_VALUE},
	{"last", "list_last", "list(A).()->opt(A)", lib_last},
	{"first", "list_first", "list(A).()->opt(A)", lib_first},
	{"optional.unwrap", "optional_unwrap", "(list(opt(A)))->list(A)", lib_unwrap},
	{"unwrapOpt", "optional_unwrapOpt", "list(opt(A)).()->list(A)", lib_unwrap},
	{"cel.@mapInsert", "cel_@mapInsert_map_key_value", "(map(A,B),A,B)->map(A,B)", lib_map_insert},
	{"cel.@mapInsert", "cel_@mapInsert_map_map", "(map(A,B),map(A,B))->map(A,B)", lib_map_insert},
	/* strings */
	{"charAt", "string_char_at_int", "string.(int)->string", lib_char_at},
	/* Kubernetes' own stand before ext/strings.go's: what may be either is a list */
	{"indexOf", "list_a_index_of_int", "list(A).(A)->int", lib_list_index_of, COST_LIST_TRAVERSE},
	{"indexOf", "string_index_of_string", "string.(string)->int", lib_index_of, COST_LIST_TRAVERSE},
	{"indexOf", "string_index_of_string_int", "string.(string,int)->int", lib_index_of, COST_LIST_TRAVERSE},
	{"lastIndexOf", "list_a_last_index_of_int", "list(A).(A)->int", lib_list_last_index_of, COST_LIST_TRAVERSE},
	{"lastIndexOf", "string_last_index_of_string", "string.(string)->int", lib_last_index_of, COST_LIST_TRAVERSE},
	{"lastIndexOf", "string_last_index_of_string_int", "string.(string,int)->int", lib_last_index_of, COST_LIST_TRAVERSE},
	{"lowerAscii", "string_lower_ascii", "string.()->string", lib_lower, COST_STRING},
	{"upperAscii", "string_upper_ascii", "string.()->string", lib_upper, COST_STRING},
	{"replace", "string_replace_string_string", "string.(string,string)->string", lib_replace, COST_REPLACE},
	{"replace", "string_replace_string_string_int", "string.(string,string,int)->string", lib_replace, COST_REPLACE},
	{"split", "string_split_string", "string.(string)->list(string)", lib_split, COST_SPLIT},
	{"split", "string_split_string_int", "string.(string,int)->list(string)", lib_split, COST_SPLIT},
	{"substring", "string_substring_int", "string.(int)->string", lib_substring, COST_STRING},
	{"substring", "string_substring_int_int", "string.(int,int)->string", lib_substring, COST_STRING},
	{"trim", "string_trim", "string.()->string", lib_trim, COST_STRING},
	{"format", "string_format", "string.(list(dyn))->string", lib_format, COST_FORMAT},
	{"strings.quote", "strings_quote", "(string)->string", lib_quote, COST_QUOTE},
	{"join", "list_join", "list(string).()->string", lib_join, COST_JOIN},
	{"join", "list_join_string", "list(string).(string)->string", lib_join, COST_JOIN},
	{"find", "string_find_string", "string.(string)->string", lib_find, COST_FIND},
	{"findAll", "string_find_all_string", "string.(string)->list(string)", lib_find_all, COST_FIND},
	{"findAll", "string_find_all_string_int", "string.(string,int)->list(string)", lib_find_all, COST_FIND},
	/* sets, lists */
	{"sets.contains", "list_sets_contains_list", "(list(A),list(A))->bool", lib_sets_contains, COST_SETS},
	{"sets.equivalent", "list_sets_equivalent_list", "(list(A),list(A))->bool", lib_sets_equivalent, COST_SETS_TWICE},
	{"sets.intersects", "list_sets_intersects_list", "(list(A),list(A))->bool", lib_sets_intersects, COST_SETS},
	SORTED("int"), SORTED("uint"), SORTED("double"), SORTED("bool"),
	OVER("isSorted", "dur", "list_duration_is_sorted_bool", "bool", lib_is_sorted, COST_LIST_TRAVERSE),
	OVER("isSorted", "ts", "list_timestamp_is_sorted_bool", "bool", lib_is_sorted, COST_LIST_TRAVERSE), SORTED("string"), SORTED("bytes"),
	OVER("sum", "int", "list_int_sum_int", "int", lib_sum_int, COST_LIST_TRAVERSE),
	OVER("sum", "uint", "list_uint_sum_uint", "uint", lib_sum_uint, COST_LIST_TRAVERSE),
	OVER("sum", "double", "list_double_sum_double", "double", lib_sum_double, COST_LIST_TRAVERSE),
	OVER("sum", "dur", "list_duration_sum_duration", "dur", lib_sum_duration, COST_LIST_TRAVERSE),
	MAX("int", "int"), MAX("uint", "uint"), MAX("double", "double"), MAX("bool", "bool"), MAX("dur", "duration"), MAX("ts", "timestamp"),
	MAX("string", "string"), MAX("bytes", "bytes"),
	MIN("int", "int"), MIN("uint", "uint"), MIN("double", "double"), MIN("bool", "bool"), MIN("dur", "duration"), MIN("ts", "timestamp"),
	MIN("string", "string"), MIN("bytes", "bytes"),
	{"slice", "list_slice", "list(A).(int,int)->list(A)", lib_slice, COST_SLICE},
	{"flatten", "list_flatten", "list(list(A)).()->list(A)", lib_flatten, COST_FLATTEN},
	{"flatten", "list_flatten_int", "list(dyn).(int)->list(dyn)", lib_flatten, COST_FLATTEN},
	SORT("int", "int"), SORT("uint", "uint"), SORT("double", "double"), SORT("bool", "bool"), SORT("dur", "duration"),
	SORT("ts", "timestamp"), SORT("string", "string"), SORT("bytes", "bytes"),
	SORT_BY("int", "int"), SORT_BY("uint", "uint"), SORT_BY("double", "double"), SORT_BY("bool", "bool"), SORT_BY("dur", "duration"),
	SORT_BY("ts", "timestamp"), SORT_BY("string", "string"), SORT_BY("bytes", "bytes"),
	{"lists.range", "lists_range", "(int)->list(int)", lib_range, COST_RANGE},
	{"reverse", "list_reverse", "list(A).()->list(A)", lib_reverse, COST_REVERSE},
	{"distinct", "list_distinct", "list(A).()->list(A)", lib_distinct, COST_DISTINCT},
	/* url */
	{"url", "string_to_url", "(string)->URL", lib_url, COST_STRING},
	{"isURL", "is_url_string", "(string)->bool", lib_is_url},
	{"getScheme", "url_get_scheme", "URL.()->string", lib_url_scheme},
	{"getHost", "url_get_host", "URL.()->string", lib_url_host},
	{"getHostname", "url_get_hostname", "URL.()->string", lib_url_hostname},
	{"getPort", "url_get_port", "URL.()->string", lib_url_port},
	{"getEscapedPath", "url_get_escaped_path", "URL.()->string", lib_url_path},
	{"getQuery", "url_get_query", "URL.()->map(string,list(string))", lib_url_query},
	/* ip, cidr */
	{"ip", "string_to_ip", "(string)->IP", lib_ip, COST_PARSE},
	{"ip", "cidr_ip", "CIDR.()->IP", lib_cidr_ip},
	{"isIP", "is_ip", "(string)->bool", lib_is_ip, COST_PARSE},
	{"ip.isCanonical", "ip_is_canonical", "(string)->bool", lib_ip_canonical, COST_CANONICAL},
	{"family", "ip_family", "IP.()->int", lib_ip_family},
	{"isUnspecified", "ip_is_unspecified", "IP.()->bool", lib_ip_unspecified},
	{"isLoopback", "ip_is_loopback", "IP.()->bool", lib_ip_loopback},
	{"isLinkLocalMulticast", "ip_is_link_local_multicast", "IP.()->bool", lib_ip_llm},
	{"isLinkLocalUnicast", "ip_is_link_local_unicast", "IP.()->bool", lib_ip_llu},
	{"isGlobalUnicast", "ip_is_global_unicast", "IP.()->bool", lib_ip_global},
	{"string", "ip_to_string", "(IP)->string", lib_ip_string},
	{"cidr", "string_to_cidr", "(string)->CIDR", lib_cidr, COST_PARSE},
	{"isCIDR", "is_cidr", "(string)->bool", lib_is_cidr, COST_PARSE},
	{"containsIP", "cidr_contains_ip_string", "CIDR.(string)->bool", lib_contains_ip, COST_CONTAINS_IP},
	{"containsIP", "cidr_contains_ip_ip", "CIDR.(IP)->bool", lib_contains_ip, COST_CONTAINS_IP},
	{"containsCIDR", "cidr_contains_cidr_string", "CIDR.(string)->bool", lib_contains_cidr, COST_CONTAINS_CIDR},
	{"containsCIDR", "cidr_contains_cidr", "CIDR.(CIDR)->bool", lib_contains_cidr, COST_CONTAINS_CIDR},
	{"prefixLength", "cidr_prefix_length", "CIDR.()->int", lib_cidr_prefix},
	{"masked", "cidr_masked", "CIDR.()->CIDR", lib_cidr_masked},
	{"string", "cidr_to_string", "(CIDR)->string", lib_cidr_string},
	/* quantity */
	{"quantity", "string_to_quantity", "(string)->Quantity", lib_quantity, COST_PARSE},
	{"isQuantity", "is_quantity_string", "(string)->bool", lib_is_quantity, COST_PARSE},
	{"sign", "quantity_sign", "(Quantity)->int", lib_quantity_sign},
	{"isGreaterThan", "quantity_is_greater_than", "Quantity.(Quantity)->bool", lib_greater},
	{"isLessThan", "quantity_is_less_than", "Quantity.(Quantity)->bool", lib_less},
	{"compareTo", "quantity_compare_to", "Quantity.(Quantity)->int", lib_compare_to},
	{"asApproximateFloat", "quantity_get_float", "Quantity.()->double", lib_quantity_float},
	{"asInteger", "quantity_get_int", "Quantity.()->int", lib_quantity_int},
	{"isInteger", "quantity_is_integer", "Quantity.()->bool", lib_quantity_is_int},
	{"add", "quantity_add", "Quantity.(Quantity)->Quantity", lib_quantity_add},
	{"add", "quantity_add_int", "Quantity.(int)->Quantity", lib_quantity_add},
	{"sub", "quantity_sub", "Quantity.(Quantity)->Quantity", lib_quantity_sub},
	{"sub", "quantity_sub_int", "Quantity.(int)->Quantity", lib_quantity_sub},
	/* semver */
	{"semver", "string_to_semver", "(string)->Semver", lib_semver, COST_PARSE},
	{"semver", "string_bool_to_semver", "(string,bool)->Semver", lib_semver, COST_PARSE},
	{"isSemver", "is_semver_string", "(string)->bool", lib_is_semver, COST_PARSE},
	{"isSemver", "is_semver_string_bool", "(string,bool)->bool", lib_is_semver, COST_PARSE},
	{"isGreaterThan", "semver_is_greater_than", "Semver.(Semver)->bool", lib_greater},
	{"isLessThan", "semver_is_less_than", "Semver.(Semver)->bool", lib_less},
	{"compareTo", "semver_compare_to", "Semver.(Semver)->int", lib_compare_to},
	{"major", "semver_major", "Semver.()->int", lib_semver_major},
	{"minor", "semver_minor", "Semver.()->int", lib_semver_minor},
	{"patch", "semver_patch", "Semver.()->int", lib_semver_patch},
	/* named formats */
	{"validate", "format-validate", "Format.(string)->opt(list(string))", lib_validate, COST_VALIDATE},
	{"format.named", "format-named", "(string)->opt(Format)", lib_format_named},
	FORMAT(dns1123Label), FORMAT(dns1123Subdomain), FORMAT(dns1035Label), FORMAT(qualifiedName), FORMAT(dns1123LabelPrefix),
	FORMAT(dns1123SubdomainPrefix), FORMAT(dns1035LabelPrefix), FORMAT(labelValue), FORMAT(uri), FORMAT(uuid), FORMAT(byte), FORMAT(date),
	FORMAT(datetime),
	/* authorizer */
	{"path", "authorizer_path", "Authorizer.(string)->PathCheck", lib_authz_path},
	{"group", "authorizer_group", "Authorizer.(string)->GroupCheck", lib_authz_group},
	{"serviceAccount", "authorizer_serviceaccount", "Authorizer.(string,string)->Authorizer", lib_authz_sa},
	{"resource", "groupcheck_resource", "GroupCheck.(string)->ResourceCheck", lib_authz_resource},
	{"subresource", "resourcecheck_subresource", "ResourceCheck.(string)->ResourceCheck", lib_authz_subresource},
	{"namespace", "resourcecheck_namespace", "ResourceCheck.(string)->ResourceCheck", lib_authz_namespace},
	{"name", "resourcecheck_name", "ResourceCheck.(string)->ResourceCheck", lib_authz_name},
	{"fieldSelector", "authorizer_fieldselector", "ResourceCheck.(string)->ResourceCheck", lib_authz_field_selector, COST_SELECTOR},
	{"labelSelector", "authorizer_labelselector", "ResourceCheck.(string)->ResourceCheck", lib_authz_label_selector, COST_SELECTOR},
	{"check", "pathcheck_check", "PathCheck.(string)->Decision", lib_authz_check, COST_CHECK},
	{"check", "resourcecheck_check", "ResourceCheck.(string)->Decision", lib_authz_check, COST_CHECK},
	{"errored", "decision_errored", "Decision.()->bool", lib_decision_errored},
	{"error", "decision_error", "Decision.()->string", lib_decision_error},
	{"allowed", "decision_allowed", "Decision.()->bool", lib_decision_allowed},
	{"reason", "decision_reason", "Decision.()->string", lib_decision_reason},
	{"jsonpatch.escapeKey", "string_jsonpatch_escapeKey_string", "(string)->string", lib_escape_key, COST_STRING},
};
#define N_ROWS (sizeof rows / sizeof *rows)

static const struct cel_type param_a = {.kind = CEL_PARAM, .name = STR_INIT("A")}, param_b = {.kind = CEL_PARAM, .name = STR_INIT("B")};
static struct overload overloads[N_ROWS];
static struct function functions[N_ROWS];
static struct map by_name;
static struct arena declared; /* for the life of the process */

static const struct cel_type *read_type(const char **p)
{
	static const struct {
		const char *name;
		const struct cel_type *t;
	} simple[] = {
		{"bool", &cel_type_bool}, {"int", &cel_type_int}, {"uint", &cel_type_uint}, {"double", &cel_type_double},
		{"string", &cel_type_string}, {"bytes", &cel_type_bytes}, {"ts", &cel_type_timestamp}, {"dur", &cel_type_duration},
		{"dyn", &cel_type_dyn}, {"A", &param_a}, {"B", &param_b}, {"URL", &cel_type_url}, {"IP", &cel_type_ip}, {"CIDR", &cel_type_cidr},
		{"Quantity", &cel_type_quantity}, {"Semver", &cel_type_semver}, {"Format", &cel_type_format},
		{"Authorizer", &cel_type_authorizer}, {"PathCheck", &cel_type_path_check}, {"GroupCheck", &cel_type_group_check},
		{"ResourceCheck", &cel_type_resource_check}, {"Decision", &cel_type_decision},
	};
	const char *start = *p;
	size_t n = strspn(start, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ");
	struct str word = str_of(start, n);
	const struct cel_type *t, *u;

	*p = start + n;
	for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
		if (str_eqz(word, simple[i].name))
			return simple[i].t;
	if (**p != '(')
		abort(); /* a slip in the table above */
	++*p;
	t = read_type(p);
	if (str_eqz(word, "map")) {
		++*p; /* , */
		u = read_type(p);
		t = cel_type_map_of(&declared, t, u);
	} else if (str_eqz(word, "list")) {
		t = cel_type_list_of(&declared, t);
	} else if (str_eqz(word, "opt")) {
		t = cel_type_optional_of(&declared, t);
	} else if (str_eqz(word, "type")) {
		t = cel_type_type_of(&declared, t);
	} else {
		abort();
	}
	++*p; /* ) */
	return t;
}

static void declare(const struct row *r, struct overload *o)
{
	const char *p = r->sig;

	*o = (struct overload){.fn = r->fn, .id = r->id, .impl = r->impl, .cost = r->cost, .op = r->op ? r->op : OP_CALL};
	if (*p != '(') {
		o->member = true;
		o->args[o->n++] = read_type(&p);
		p++; /* . */
	}
	p++; /* ( */
	while (*p != ')') {
		o->args[o->n++] = read_type(&p);
		if (*p == ',')
			p++;
	}
	p += 3; /* )-> */
	o->result = read_type(&p);
	if (strchr(r->sig, 'A'))
		o->params[o->n_params++] = &param_a;
	if (strchr(r->sig, 'B'))
		o->params[o->n_params++] = &param_b;
	o->parsed_string = strstr(r->id, "_string") && (r->cost == COST_CONTAINS_IP || r->cost == COST_CONTAINS_CIDR);
}

static void declare_all(void)
{
	size_t n = 0, nf = 0;

	/* overloads of one function stand together, in the order of rows */
	for (size_t i = 0; i < N_ROWS; i++) {
		struct function *f;

		if (map_has(&by_name, str_from(rows[i].fn)))
			continue;
		f = &functions[nf++];
		f->name = str_from(rows[i].fn);
		f->ov = &overloads[n];
		for (size_t k = i; k < N_ROWS; k++)
			if (!strcmp(rows[k].fn, rows[i].fn))
				declare(&rows[k], &overloads[n++]);
		f->n = (uint32_t)(&overloads[n] - f->ov);
		map_set(&by_name, f->name, f);
	}
}

const struct function *cel_function(struct str name, bool patch_types)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, declare_all);
	if (name.n && name.p[0] == '.')
		name = str_sub(name, 1, name.n);
	if (!patch_types && str_eqz(name, "jsonpatch.escapeKey"))
		return NULL;
	return map_get(&by_name, name);
}
