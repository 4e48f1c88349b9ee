/* Volumes of pods, PersistentVolumes and claims: what the tables do not say about their sources. */
#include <ctype.h>

#include "apiserver/validate_pod.h"
#include "schema/quantity.h"

static void file_mode(struct field_errors *e, const struct field_path *p, const int32_t *mode)
{
	if (mode && (*mode < 0 || *mode > 0777))
		field_invalid_int(e, p, *mode, "must be a number between 0 and 0777 (octal), both inclusive");
}

/* Relative, within the volume, and not one of the names the kubelet keeps for itself ("..data"). */
static void volume_path(struct field_errors *e, const struct field_path *p, struct str path)
{
	field_check(e, p, path, validate_descending_path);
	if (str_has_prefix(path, STR("..")) && !str_has_prefix(path, STR("../")))
		field_invalid(e, p, path, "must not start with '..'");
}

/* `paths`: of the projected volume, or NULL; `owner` is printed when one of them is there already. */
static void key_to_paths(struct field_errors *e, const struct field_path *at, const struct core_v1_key_to_path *v, uint32_t n, struct map *paths,
			 struct str owner, const struct field_path *volume)
{
	for (uint32_t i = 0; i < n; i++) {
		const struct field_path *p = EL(at, i);

		rule_required(e, AT(p, "key"), v[i].key);
		rule_required(e, AT(p, "path"), v[i].path);
		volume_path(e, AT(p, "path"), v[i].path);
		file_mode(e, AT(p, "mode"), v[i].mode);
		if (paths && v[i].path.n) {
			if (map_has(paths, v[i].path))
				field_invalid(e, volume, owner, "conflicting duplicate paths");
			map_set(paths, v[i].path, paths);
		}
	}
}

static void downward_file(struct field_errors *e, const struct field_path *p, const struct core_v1_downward_api_volume_file *f)
{
	rule_required(e, AT(p, "path"), f->path);
	volume_path(e, AT(p, "path"), f->path);
	if (f->field_ref) {
		rule_field_ref(e, AT(p, "fieldRef"), f->field_ref, true);
		if (f->resource_field_ref)
			field_invalid(e, p, STR("resource"), "fieldRef and resourceFieldRef can not be specified simultaneously");
	} else if (f->resource_field_ref) {
		rule_resource_field_ref(e, AT(p, "resourceFieldRef"), f->resource_field_ref, true);
	} else {
		field_required(e, p, "one of fieldRef and resourceFieldRef is required");
	}
	file_mode(e, AT(p, "mode"), f->mode);
}

static void conflicting_path(struct field_errors *e, const struct field_path *p, struct map *paths, struct str path)
{
	if (map_has(paths, path))
		field_invalid(e, p, path, "conflicting duplicate paths");
	map_set(paths, path, paths);
}

static void projected(struct field_errors *e, const struct field_path *p, const struct core_v1_projected_volume_source *v,
		      const struct pod_options *o)
{
	struct map paths = {0};

	file_mode(e, AT(p, "defaultMode"), v->default_mode);
	for (uint32_t i = 0; i < v->sources.n; i++) {
		const struct core_v1_volume_projection *s = &v->sources.v[i];
		const struct field_path *at = EL(AT(p, "sources"), i);
		int n = 0;

		if (s->secret) {
			n++;
			rule_required(e, AT(AT(at, "secret"), "name"), s->secret->local_object_reference.name);
			key_to_paths(e, AT(AT(at, "secret"), "items"), s->secret->items.v, s->secret->items.n, &paths,
				     s->secret->local_object_reference.name, p);
		}
		if (s->config_map) {
			n++;
			rule_required(e, AT(AT(at, "configMap"), "name"), s->config_map->local_object_reference.name);
			key_to_paths(e, AT(AT(at, "configMap"), "items"), s->config_map->items.v, s->config_map->items.n, &paths,
				     s->config_map->local_object_reference.name, p);
		}
		if (s->downward_api) {
			n++;
			for (uint32_t k = 0; k < s->downward_api->items.n; k++) {
				const struct core_v1_downward_api_volume_file *f = &s->downward_api->items.v[k];

				downward_file(e, AT(at, "downwardAPI"), f);
				if (f->path.n)
					conflicting_path(e, p, &paths, f->path);
			}
		}
		if (s->service_account_token) {
			const struct core_v1_service_account_token_projection *t = s->service_account_token;
			const struct field_path *seconds = AT(AT(at, "serviceAccountToken"), "expirationSeconds");

			n++;
			if (t->expiration_seconds && *t->expiration_seconds < 600)
				field_invalid_int(e, seconds, *t->expiration_seconds, "may not specify a duration less than 10 minutes");
			if (t->expiration_seconds && *t->expiration_seconds > 1LL << 32)
				field_invalid_int(e, seconds, *t->expiration_seconds, "may not specify a duration larger than 2^32 seconds");
			if (!t->path.n)
				field_required(e, AT(p, "path"), "");
			else if (!o->lax_token_path)
				volume_path(e, AT(p, "path"), t->path);
		}
		if (n > 1)
			field_forbidden(e, at, "may not specify more than 1 volume type per source");
	}
	map_free(&paths);
}

/* iqn.yyyy-mm.domain:name, eui.16 characters or naa.32 */
static bool iscsi_name(struct str s)
{
	size_t want = str_has_prefix(s, STR("eui")) ? 16 : 32, i;

	if (!str_has_prefix(s, STR("iqn"))) {
		if (s.n != want + 4)
			return false;
		for (i = 4; i < s.n; i++)
			if (!isalnum((unsigned char)s.p[i]))
				return false;
		return true;
	}
	if (s.n < 12 || s.p[3] != '.' || s.p[8] != '-' || s.p[11] != '.')
		return false;
	for (i = 4; i < 11; i++)
		if (i != 8 && !isdigit((unsigned char)s.p[i]))
			return false;
	for (i = 12; i < s.n && (isalnum((unsigned char)s.p[i]) || s.p[i] == '-' || s.p[i] == '.'); i++)
		;
	if (i == 12 || i + 1 >= s.n || s.p[i] != ':')
		return false;
	for (i++; i < s.n; i++)
		if (strchr(",;*&$|", s.p[i]) || isspace((unsigned char)s.p[i]))
			return false;
	return true;
}

static void iscsi_form(struct field_errors *e, const struct field_path *p, struct str s, const char *unknown)
{
	if (!str_has_prefix(s, STR("iqn")) && !str_has_prefix(s, STR("eui")) && !str_has_prefix(s, STR("naa")))
		field_invalid(e, p, s, "%s", unknown);
	else if (!iscsi_name(s))
		field_invalid(e, p, s, "must be valid format");
}

/* The target, with the logical unit behind it. */
static void iscsi_target(struct field_errors *e, const struct field_path *p, struct str iqn, int32_t lun, const char *unknown)
{
	rule_required(e, AT(p, "iqn"), iqn);
	if (iqn.n)
		iscsi_form(e, AT(p, "iqn"), iqn, unknown);
	rule_range(e, AT(p, "lun"), lun, 0, 255);
}

#define ISCSI_PORTAL_MAX 64
#define ISCSI_TOO_LONG \
	"Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified."
#define ISCSI_PREFIXES "must be valid format starting with iqn, eui, or naa"

static void fc(struct field_errors *e, const struct field_path *p, const struct core_v1_fc_volume_source *v)
{
	if (!v->target_wwns.n && !v->wwids.n)
		field_required(e, AT(p, "targetWWNs"), "must specify either targetWWNs or wwids, but not both");
	if (v->target_wwns.n && v->wwids.n)
		field_invalid_list(e, AT(p, "targetWWNs"), (const void *)&v->target_wwns, "targetWWNs and wwids can not be specified simultaneously");
	if (v->target_wwns.n && !v->lun)
		field_required(e, AT(p, "lun"), "lun is required if targetWWNs is specified");
	else if (v->target_wwns.n)
		rule_range(e, AT(p, "lun"), *v->lun, 0, 255);
}

static void disk_partition(struct field_errors *e, const struct field_path *p, int32_t partition)
{
	if (partition < 0 || partition > 255)
		field_invalid_int(e, AT(p, "partition"), partition, "must be between 1 and 255, inclusive");
}

static void quobyte(struct field_errors *e, const struct field_path *p, const struct core_v1_quobyte_volume_source *v)
{
	static const char pairs[] = "must be a host:port pair or multiple pairs separated by commas";

	if (!v->registry.n) {
		field_required(e, AT(p, "registry"), pairs);
	} else if (v->tenant.n >= 65) {
		field_required(e, AT(p, "tenant"), "must be a UUID and may not exceed a length of 64 characters");
	} else {
		for (struct str rest = v->registry; rest.p;) {
			struct str pair = str_cut(&rest, ',');
			ptrdiff_t colon = str_rindex(pair, ':');

			/* one colon, or an address in brackets before the last */
			if (colon < 0 || (str_index(pair, ':') != colon && !(pair.p[0] == '[' && pair.p[colon - 1] == ']')))
				field_invalid(e, AT(p, "registry"), v->registry, "%s", pairs);
		}
	}
	rule_required(e, AT(p, "volume"), v->volume);
}

static void flocker(struct field_errors *e, const struct field_path *p, const struct core_v1_flocker_volume_source *v)
{
	if (!v->dataset_name.n && !v->dataset_uuid.n)
		field_required(e, p, "one of datasetName and datasetUUID is required");
	if (v->dataset_name.n && v->dataset_uuid.n)
		field_invalid(e, p, STR("resource"), "datasetName and datasetUUID can not be specified simultaneously");
	if (str_index(v->dataset_name, '/') >= 0)
		field_invalid(e, AT(p, "datasetName"), v->dataset_name, "must not contain '/'");
}

static void flex_options(struct field_errors *e, const struct field_path *p, const struct str_map *options)
{
	for (uint32_t i = 0; i < options->n; i++) {
		struct str rest = options->v[i].key, ns = str_cut(&rest, '/');
		char *z = arena_printf(e->arena, ".%.*s", STR_ARG(ns)).n ? arena_strz(e->arena, arena_printf(e->arena, ".%.*s", STR_ARG(ns))) : NULL;

		for (size_t k = 0; z && z[k]; k++)
			z[k] = (char)tolower((unsigned char)z[k]);
		if (str_has_suffix(str_from(z), STR(".kubernetes.io")) || str_has_suffix(str_from(z), STR(".k8s.io")))
			field_invalid(e, KEY(AT(p, "options"), options->v[i].key), options->v[i].key,
				      "kubernetes.io and k8s.io namespaces are reserved");
	}
}

static void azure_disk(struct field_errors *e, const struct field_path *p, const struct core_v1_azure_disk_volume_source *v)
{
	validate_rules(e, &core_v1_azure_disk_volume_source_type, v, p);
	if (ptr_is(v->kind, "Managed") && !str_has_prefix(v->disk_uri, STR("/subscriptions/")))
		field_unsupported(e, AT(p, "diskURI"), v->disk_uri,
				  "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}");
	if (v->kind && !ptr_is(v->kind, "Managed") && !str_has_prefix(v->disk_uri, STR("https://")))
		field_unsupported(e, AT(p, "diskURI"), v->disk_uri, "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd");
}

/* A secret in the pod's namespace. */
static void local_secret(struct field_errors *e, const struct field_path *p, const struct core_v1_local_object_reference *r)
{
	if (r && !r->name.n)
		field_required(e, AT(p, "name"), "");
}

/* A secret anywhere: both parts, without looking at their form. */
static void far_secret(struct field_errors *e, const struct field_path *p, bool set, struct str name, struct str ns)
{
	if (!set)
		return;
	rule_required(e, AT(p, "name"), name);
	rule_required(e, AT(p, "namespace"), ns);
}

static void far_secret_named(struct field_errors *e, const struct field_path *p, const struct core_v1_secret_reference *r)
{
	if (!r)
		return;
	rule_name(e, AT(p, "name"), r->name, validate_dns1123_subdomain);
	rule_name(e, AT(p, "namespace"), r->namespace, validate_dns1123_label);
}

/* ---- sources of pods ---- */

static void pod_source(struct field_errors *e, const struct field_path *p, const struct core_v1_volume_source *s, struct str member,
		       const struct schema_type *t, const void *v, struct str name, struct str pod_name, const struct pod_options *o)
{
	const struct field_path *at = FIELD_CHILD_S(p, member);

	if (v == s->empty_dir) {
		if (s->empty_dir->size_limit && quantity_cmp(*s->empty_dir->size_limit, STR("0")) < 0)
			field_forbidden(e, AT(at, "sizeLimit"), "SizeLimit field must be a valid resource quantity");
	} else if (v == s->host_path) {
		rule_name(e, AT(at, "path"), s->host_path->path, validate_no_backsteps);
		if (s->host_path->path.n && s->host_path->type)
			field_one_of(e, AT(at, "type"), *s->host_path->type,
				     ",BlockDevice,CharDevice,Directory,DirectoryOrCreate,File,FileOrCreate,Socket");
	} else if (v == s->gce_persistent_disk) {
		validate_rules(e, t, v, AT(p, "persistentDisk"));
		disk_partition(e, AT(p, "persistentDisk"), s->gce_persistent_disk->partition);
	} else if (v == s->aws_elastic_block_store) {
		validate_rules(e, t, v, at);
		disk_partition(e, at, s->aws_elastic_block_store->partition);
	} else if (v == s->secret) {
		rule_required(e, AT(at, "secretName"), s->secret->secret_name);
		file_mode(e, AT(at, "defaultMode"), s->secret->default_mode);
		key_to_paths(e, AT(at, "items"), s->secret->items.v, s->secret->items.n, NULL, STR_NULL, at);
	} else if (v == s->config_map) {
		rule_required(e, AT(at, "name"), s->config_map->local_object_reference.name);
		file_mode(e, AT(at, "defaultMode"), s->config_map->default_mode);
		key_to_paths(e, AT(at, "items"), s->config_map->items.v, s->config_map->items.n, NULL, STR_NULL, at);
	} else if (v == s->nfs) {
		validate_rules(e, t, v, at);
		if (!s->nfs->path.n || s->nfs->path.p[0] != '/')
			field_invalid(e, AT(at, "path"), s->nfs->path, "must be an absolute path");
	} else if (v == s->iscsi) {
		validate_rules(e, t, v, at);
		iscsi_target(e, at, s->iscsi->iqn, s->iscsi->lun, ISCSI_PREFIXES);
		if ((s->iscsi->chap_auth_discovery || s->iscsi->chap_auth_session) && !s->iscsi->secret_ref)
			field_required(e, AT(at, "secretRef"), "");
		if (s->iscsi->initiator_name)
			iscsi_form(e, AT(at, "initiatorname"), *s->iscsi->initiator_name, ISCSI_PREFIXES);
		if (s->iscsi->initiator_name && name.n + 1 + s->iscsi->target_portal.n > ISCSI_PORTAL_MAX)
			field_invalid(e, AT(p, "name"), name, ISCSI_TOO_LONG);
	} else if (v == s->flocker) {
		flocker(e, at, s->flocker);
	} else if (v == s->cinder) {
		validate_rules(e, t, v, at);
		local_secret(e, AT(at, "secretRef"), s->cinder->secret_ref);
	} else if (v == s->quobyte) {
		quobyte(e, at, s->quobyte);
	} else if (v == s->downward_api) {
		file_mode(e, AT(at, "defaultMode"), s->downward_api->default_mode);
		for (uint32_t i = 0; i < s->downward_api->items.n; i++)
			downward_file(e, at, &s->downward_api->items.v[i]);
	} else if (v == s->fc) {
		fc(e, at, s->fc);
	} else if (v == s->flex_volume) {
		validate_rules(e, t, v, at);
		flex_options(e, at, API_MAP(&s->flex_volume->options));
	} else if (v == s->azure_disk) {
		azure_disk(e, at, s->azure_disk);
	} else if (v == s->storageos) {
		validate_rules(e, t, v, at);
		local_secret(e, AT(at, "secretRef"), s->storageos->secret_ref);
	} else if (v == s->projected) {
		projected(e, at, s->projected, o);
	} else if (v == s->csi) {
		rule_csi_driver_name(e, AT(at, "driver"), s->csi->driver);
		if (s->csi->node_publish_secret_ref && !s->csi->node_publish_secret_ref->name.n)
			field_required(e, AT(AT(at, "nodePublishSecretRef"), "name"), "");
		else if (s->csi->node_publish_secret_ref)
			field_check(e, AT(at, "name"), s->csi->node_publish_secret_ref->name, validate_dns1123_subdomain);
	} else if (v == s->ephemeral) {
		const struct core_v1_persistent_volume_claim_template *c = s->ephemeral->volume_claim_template;
		const struct field_path *tp = AT(at, "volumeClaimTemplate");

		if (!c) {
			field_required(e, tp, "");
		} else {
			rule_template_meta(e, AT(tp, "metadata"), &c->metadata);
			rule_pvc_spec(e, AT(tp, "spec"), &c->spec, &(struct pvc_options){0});
		}
		if (pod_name.n && name.n) {
			struct str claim = arena_printf(e->arena, "%.*s-%.*s", STR_ARG(pod_name), STR_ARG(name));
			const char *m = validate_dns1123_subdomain(e->arena, claim);

			if (m)
				field_invalid(e, AT(p, "name"), name, "PVC name \"%.*s\": %s", STR_ARG(claim), m);
		}
	} else if (v == s->image) {
		if (o->is_pod)
			rule_required(e, AT(at, "reference"), s->image->reference);
		rule_enum(e, AT(at, "pullPolicy"), s->image->pull_policy, "Always,IfNotPresent,Never");
	} else {
		validate_rules(e, t, v, at); /* the tables say it all */
	}
}

/* The order upstream looks at them in: the first is judged, the others are too many. */
static const char *const pod_order[] = {
	"emptyDir", "hostPath", "gitRepo", "gcePersistentDisk", "awsElasticBlockStore", "secret", "nfs", "iscsi", "glusterfs", "flocker",
	"persistentVolumeClaim", "rbd", "cinder", "cephfs", "quobyte", "downwardAPI", "fc", "flexVolume", "configMap", "azureFile",
	"vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk", "storageos", "projected", "scaleIO", "csi", "ephemeral",
	"image",
};
static const char *const pv_order[] = {
	"hostPath", "gcePersistentDisk", "awsElasticBlockStore", "glusterfs", "flocker", "nfs", "rbd", "quobyte", "cephfs", "iscsi", "cinder",
	"fc", "flexVolume", "azureFile", "vsphereVolume", "photonPersistentDisk", "portworxVolume", "azureDisk", "scaleIO", "local", "storageos",
	"csi",
};

/* The path of a second source, where upstream spells it otherwise. */
static const char *twice_at(const char *member)
{
	return !strcmp(member, "cephfs") ? "cephFS" : !strcmp(member, "downwardAPI") ? "downwarAPI" : member;
}

static const void *source_of(const struct schema_type *t, const void *sources, const char *member, const struct schema_type **type)
{
	const struct schema_field *f = schema_field(t, str_from(member));

	*type = f->type;
	return *(const void *const *)(const void *)((const char *)sources + f->offset);
}

void rule_volumes(struct field_errors *e, const struct field_path *p, const struct core_v1_pod_spec *s, struct str pod_name,
		  const struct pod_options *o, struct map *good)
{
	for (uint32_t i = 0; i < s->volumes.n; i++) {
		const struct core_v1_volume *v = &s->volumes.v[i];
		const struct field_path *at = EL(p, i);
		uint32_t before = e->list.n;
		int n = 0;

		for (size_t k = 0; k < sizeof pod_order / sizeof *pod_order; k++) {
			const struct schema_type *t;
			const void *source = source_of(&core_v1_volume_source_type, &v->volume_source, pod_order[k], &t);

			if (source && n++)
				field_forbidden(e, FIELD_CHILD_S(at, str_from(twice_at(pod_order[k]))), "may not specify more than 1 volume type");
			else if (source)
				pod_source(e, at, &v->volume_source, str_from(pod_order[k]), t, source, v->name, pod_name, o);
		}
		if (!n)
			field_required(e, at, "must specify a volume type");
		rule_name(e, AT(at, "name"), v->name, validate_dns1123_label);
		if (map_has(good, v->name))
			field_duplicate(e, AT(at, "name"), v->name);
		if (e->list.n == before)
			map_set(good, v->name, (void *)(uintptr_t)v);
		for (uint32_t k = 0; v->volume_source.persistent_volume_claim && pod_name.n && k < s->volumes.n; k++)
			if (s->volumes.v[k].volume_source.ephemeral &&
			    str_eq(v->volume_source.persistent_volume_claim->claim_name,
				   arena_printf(e->arena, "%.*s-%.*s", STR_ARG(pod_name), STR_ARG(s->volumes.v[k].name))))
				field_invalid(e, AT(AT(at, "persistentVolumeClaim"), "claimName"), v->volume_source.persistent_volume_claim->claim_name,
					      "must not reference a PVC that gets created for an ephemeral volume");
	}
}

/* ---- PersistentVolumes ---- */

static void pv_source(struct field_errors *e, const struct field_path *p, const struct core_v1_persistent_volume_spec *spec, struct str member,
		      const struct schema_type *t, const void *v, struct str name)
{
	const struct core_v1_persistent_volume_source *s = &spec->persistent_volume_source;
	const struct field_path *at = FIELD_CHILD_S(p, member);

	if (v == s->host_path) {
		rule_name(e, AT(at, "path"), s->host_path->path, validate_no_backsteps);
		if (s->host_path->path.n && s->host_path->type)
			field_one_of(e, AT(at, "type"), *s->host_path->type,
				     ",BlockDevice,CharDevice,Directory,DirectoryOrCreate,File,FileOrCreate,Socket");
	} else if (v == s->gce_persistent_disk) {
		validate_rules(e, t, v, AT(p, "persistentDisk"));
		disk_partition(e, AT(p, "persistentDisk"), s->gce_persistent_disk->partition);
	} else if (v == s->aws_elastic_block_store) {
		validate_rules(e, t, v, at);
		disk_partition(e, at, s->aws_elastic_block_store->partition);
	} else if (v == s->glusterfs) {
		struct str *ns = s->glusterfs->endpoints_namespace;

		validate_rules(e, t, v, at);
		if (ns && !ns->n)
			field_invalid(e, AT(at, "endpointsNamespace"), *ns, "if the endpointnamespace is set, it must be a valid namespace name");
		else if (ns)
			field_check(e, AT(at, "endpointsNamespace"), *ns, validate_dns1123_label);
	} else if (v == s->flocker) {
		flocker(e, at, s->flocker);
	} else if (v == s->nfs) {
		validate_rules(e, t, v, at);
		if (!s->nfs->path.n || s->nfs->path.p[0] != '/')
			field_invalid(e, AT(at, "path"), s->nfs->path, "must be an absolute path");
	} else if (v == s->quobyte) {
		quobyte(e, at, s->quobyte);
	} else if (v == s->iscsi) {
		validate_rules(e, t, v, at);
		if (s->iscsi->initiator_name && name.n + 1 + s->iscsi->target_portal.n > ISCSI_PORTAL_MAX)
			field_invalid(e, AT(at, "targetportal"), s->iscsi->target_portal, ISCSI_TOO_LONG);
		iscsi_target(e, at, s->iscsi->iqn, s->iscsi->lun, "must be valid format");
		if ((s->iscsi->chap_auth_discovery || s->iscsi->chap_auth_session) && !s->iscsi->secret_ref)
			field_required(e, AT(at, "secretRef"), "");
		if (s->iscsi->secret_ref)
			rule_required(e, AT(AT(at, "secretRef"), "name"), s->iscsi->secret_ref->name);
		if (s->iscsi->initiator_name)
			iscsi_form(e, AT(at, "initiatorname"), *s->iscsi->initiator_name, "must be valid format");
	} else if (v == s->cinder) {
		validate_rules(e, t, v, at);
		far_secret(e, AT(at, "secretRef"), s->cinder->secret_ref, s->cinder->secret_ref ? s->cinder->secret_ref->name : STR_NULL,
			   s->cinder->secret_ref ? s->cinder->secret_ref->namespace : STR_NULL);
	} else if (v == s->fc) {
		fc(e, at, s->fc);
	} else if (v == s->flex_volume) {
		validate_rules(e, t, v, at);
		flex_options(e, at, API_MAP(&s->flex_volume->options));
	} else if (v == s->azure_file) {
		validate_rules(e, t, v, at);
		if (s->azure_file->secret_namespace)
			rule_required(e, AT(at, "secretNamespace"), *s->azure_file->secret_namespace);
	} else if (v == s->azure_disk) {
		azure_disk(e, at, s->azure_disk);
	} else if (v == s->local) {
		rule_name(e, AT(at, "path"), s->local->path, validate_no_backsteps);
		if (!spec->node_affinity)
			field_required(e, AT(p, "nodeAffinity"), "Local volume requires node affinity");
	} else if (v == s->storageos) {
		const struct core_v1_object_reference *r = s->storageos->secret_ref;

		validate_rules(e, t, v, at);
		far_secret(e, AT(at, "secretRef"), r, r ? r->name : STR_NULL, r ? r->namespace : STR_NULL);
	} else if (v == s->csi) {
		rule_csi_driver_name(e, AT(at, "driver"), s->csi->driver);
		rule_required(e, AT(at, "volumeHandle"), s->csi->volume_handle);
		far_secret_named(e, AT(at, "controllerPublishSecretRef"), s->csi->controller_publish_secret_ref);
		far_secret_named(e, AT(at, "controllerExpandSecretRef"), s->csi->controller_expand_secret_ref);
		far_secret_named(e, AT(at, "nodePublishSecretRef"), s->csi->node_publish_secret_ref);
		far_secret_named(e, AT(at, "nodeExpandSecretRef"), s->csi->node_expand_secret_ref);
	} else {
		validate_rules(e, t, v, at);
	}
}

static void access_modes(struct field_errors *e, const struct field_path *p, const struct strings *modes)
{
	bool once_pod = false, other = false;

	for (uint32_t i = 0; i < modes->n; i++) {
		bool known = field_one_of(e, p, modes->v[i], "ReadOnlyMany,ReadWriteMany,ReadWriteOnce,ReadWriteOncePod");

		if (str_eqz(modes->v[i], "ReadWriteOncePod"))
			once_pod = true;
		else
			other |= known;
	}
	if (once_pod && other)
		field_forbidden(e, p, "may not use ReadWriteOncePod with other access modes");
}

/* Go's path.Clean gives "/". */
static bool is_root(struct str path)
{
	int64_t depth = 0;

	if (!str_has_prefix(path, STR("/")))
		return false;
	while (path.p) {
		struct str part = str_cut(&path, '/');

		if (str_eqz(part, ".."))
			depth -= depth > 0;
		else if (part.n && !str_eqz(part, "."))
			depth++;
	}
	return depth == 0;
}

void rule_pv_spec(struct field_errors *e, const struct field_path *p, const struct core_v1_persistent_volume_spec *s, struct str name, bool inlined,
		  bool lax_affinity)
{
	const struct field_path *cap = AT(p, "capacity");
	int n = 0;

	if (inlined) {
		if (s->claim_ref)
			field_forbidden(e, AT(p, "claimRef"), "may not be specified in the context of inline volumes");
		if (s->capacity.n)
			field_forbidden(e, cap, "may not be specified in the context of inline volumes");
		if (!s->persistent_volume_source.csi)
			field_required(e, AT(p, "csi"), "has to be specified in the context of inline volumes");
	}
	if (!s->access_modes.n)
		field_required(e, AT(p, "accessModes"), "");
	access_modes(e, AT(p, "accessModes"), (const void *)&s->access_modes);
	if (!inlined) {
		if (!s->capacity.n)
			field_required(e, cap, "");
		if (!str_map_has(API_MAP(&s->capacity), STR("storage")) || s->capacity.n > 1) {
			static const struct str storage[] = {STR_INIT("storage")};

			field_not_supported_raw(e, cap, field_json(e->arena, &core_v1_persistent_volume_spec_type, s, STR("capacity")), storage, 1);
		}
		for (uint32_t i = 0; i < s->capacity.n; i++) {
			struct str q = s->capacity.v[i].value;
			const struct field_path *at = KEY(cap, s->capacity.v[i].key);

			if (quantity_value(q) < 0)
				field_invalid_int(e, at, quantity_value(q), "must be a valid resource quantity");
			if (quantity_cmp(q, STR("0")) <= 0)
				field_invalid(e, at, q, "must be greater than zero");
		}
	}
	if (s->persistent_volume_reclaim_policy.n) {
		if (!inlined)
			field_one_of(e, AT(p, "persistentVolumeReclaimPolicy"), s->persistent_volume_reclaim_policy, "Delete,Recycle,Retain");
		else if (!str_eqz(s->persistent_volume_reclaim_policy, "Retain"))
			field_forbidden(e, AT(p, "persistentVolumeReclaimPolicy"), "may only be Retain in the context of inline volumes");
	}
	if (s->node_affinity) {
		const struct field_path *na = AT(p, "nodeAffinity");

		if (inlined)
			field_forbidden(e, na, "may not be specified in the context of inline volumes");
		else if (s->node_affinity->required)
			rule_node_selector(e, AT(na, "required"), s->node_affinity->required, lax_affinity);
		else
			field_required(e, AT(na, "required"), "must specify required node constraints");
	}
	for (size_t k = 0; k < sizeof pv_order / sizeof *pv_order; k++) {
		const struct schema_type *t;
		const void *source = source_of(&core_v1_persistent_volume_source_type, &s->persistent_volume_source, pv_order[k], &t);

		/* a flexVolume is never one too many */
		if (source && n++ && strcmp(pv_order[k], "flexVolume"))
			field_forbidden(e, FIELD_CHILD_S(p, str_from(twice_at(pv_order[k]))), "may not specify more than 1 volume type");
		else if (source)
			pv_source(e, p, s, str_from(pv_order[k]), t, source, name);
	}
	if (!n)
		field_required(e, p, "must specify a volume type");
	if (s->persistent_volume_source.host_path && s->persistent_volume_source.host_path->path.n &&
	    is_root(s->persistent_volume_source.host_path->path) && str_eqz(s->persistent_volume_reclaim_policy, "Recycle"))
		field_forbidden(e, AT(p, "persistentVolumeReclaimPolicy"), "may not be 'recycle' for a hostPath mount of '/'");
	if (s->storage_class_name.n) {
		if (inlined)
			field_forbidden(e, AT(p, "storageClassName"), "may not be specified in the context of inline volumes");
		else
			field_check(e, AT(p, "storageClassName"), s->storage_class_name, validate_dns1123_subdomain);
	}
	if (s->volume_mode) {
		if (!inlined)
			field_one_of(e, AT(p, "volumeMode"), *s->volume_mode, "Block,Filesystem");
		else if (!str_eqz(*s->volume_mode, "Filesystem"))
			field_forbidden(e, AT(p, "volumeMode"), "may not specify volumeMode other than Filesystem in the context of inline volumes");
	}
	if (s->volume_attributes_class_name && !inlined) {
		const struct field_path *at = AT(p, "volumeAttributesClassName");

		if (!s->volume_attributes_class_name->n)
			field_required(e, at, "an empty string is disallowed");
		else
			field_check(e, at, *s->volume_attributes_class_name, validate_dns1123_subdomain);
		if (!s->persistent_volume_source.csi)
			field_required(e, AT(p, "csi"), "has to be specified when using volumeAttributesClassName");
	}
}

/* ---- claims ---- */

static void data_source(struct field_errors *e, const struct field_path *p, struct str name, struct str kind, const struct str *group, bool lax)
{
	rule_required(e, AT(p, "name"), name);
	rule_required(e, AT(p, "kind"), kind);
	if ((!group || !group->n) && !str_eqz(kind, "PersistentVolumeClaim"))
		field_invalid(e, p, kind, "must be 'PersistentVolumeClaim' when referencing the default apiGroup");
	if (group && group->n && !lax)
		field_check(e, AT(p, "apiGroup"), *group, validate_dns1123_subdomain);
}

void rule_pvc_spec(struct field_errors *e, const struct field_path *p, const struct core_v1_persistent_volume_claim_spec *s,
		   const struct pvc_options *o)
{
	const struct field_path *storage = KEY(AT(p, "resources"), STR("storage"));
	struct str q = str_map_get(API_MAP(&s->resources.requests), STR("storage"));
	const struct core_v1_typed_local_object_reference *d = s->data_source;
	const struct core_v1_typed_object_reference *r = s->data_source_ref;

	if (!s->access_modes.n)
		field_required(e, AT(p, "accessModes"), "at least 1 access mode is required");
	if (s->selector)
		validate_label_selector_lax(e, s->selector, AT(p, "selector"), o->lax_selector);
	access_modes(e, AT(p, "accessModes"), (const void *)&s->access_modes);
	if (!str_map_has(API_MAP(&s->resources.requests), STR("storage")))
		field_required(e, storage, "");
	else if (quantity_cmp(q, STR("0")) <= 0)
		field_invalid(e, storage, q, "must be greater than zero");
	if (s->storage_class_name && s->storage_class_name->n)
		field_check(e, AT(p, "storageClassName"), *s->storage_class_name, validate_dns1123_subdomain);
	if (s->volume_mode)
		field_one_of(e, AT(p, "volumeMode"), *s->volume_mode, "Block,Filesystem");
	if (d)
		data_source(e, AT(p, "dataSource"), d->name, d->kind, d->api_group, o->lax_group);
	if (r) {
		data_source(e, AT(p, "dataSourceRef"), r->name, r->kind, r->api_group, o->lax_group);
		if (r->namespace && r->namespace->n)
			field_check(e, AT(AT(p, "dataSourceRef"), "namespace"), *r->namespace, validate_dns1123_label);
	}
	if (r && r->namespace && r->namespace->n) {
		if (d)
			field_invalid_raw(e, p, STR("{}"), "may not be specified when dataSourceRef.namespace is specified");
	} else if (d && r && !(!d->api_group == !r->api_group && (!d->api_group || str_eq(*d->api_group, *r->api_group)) &&
			       str_eq(d->kind, r->kind) && str_eq(d->name, r->name))) {
		field_invalid_raw(e, p, STR("{}"), "must match dataSourceRef");
	}
	if (s->volume_attributes_class_name && s->volume_attributes_class_name->n)
		field_check(e, AT(p, "volumeAttributesClassName"), *s->volume_attributes_class_name, validate_dns1123_subdomain);
}

void rule_template_meta(struct field_errors *e, const struct field_path *p, const struct meta_v1_object_meta *m)
{
	static const struct meta_v1_object_meta none;
	const struct schema_type *t = &meta_v1_object_meta_type;

	validate_annotations(e, API_MAP(&m->annotations), AT(p, "annotations"));
	validate_labels(e, API_MAP(&m->labels), AT(p, "labels"));
	for (uint16_t i = 0; i < t->n_fields; i++) {
		char name[64];

		snprintf(name, sizeof name, "%.*s", STR_ARG(t->fields[i].name));
		/* an empty list is something set; upstream makes the path of the name that Go has for the field */
		if (strcmp(name, "annotations") && strcmp(name, "labels") && !object_field_identical(t, m, &none, name))
			field_forbidden(e, FIELD_CHILD_S(p, strcmp(name, "uid") ? t->fields[i].name : STR("uID")), "cannot be set");
	}
}
