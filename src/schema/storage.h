/*
 * schema/storage.h: which PersistentVolume fits which PersistentVolumeClaim: the rules that the binder and the scheduler share
 * (upstream's component-helpers/storage/volume). Pure functions over objects.
 */
#ifndef SKIFF_SCHEMA_STORAGE_H
#define SKIFF_SCHEMA_STORAGE_H

#include "base/error.h"
#include "schema/api.h"

#define ANN_BIND_COMPLETED "pv.kubernetes.io/bind-completed"
#define ANN_BOUND_BY_CONTROLLER "pv.kubernetes.io/bound-by-controller"
#define ANN_PROVISIONED_BY "pv.kubernetes.io/provisioned-by"
#define ANN_MIGRATED_TO "pv.kubernetes.io/migrated-to"
#define ANN_SELECTED_NODE "volume.kubernetes.io/selected-node"
#define ANN_PROVISIONER "volume.kubernetes.io/storage-provisioner"
#define ANN_BETA_PROVISIONER "volume.beta.kubernetes.io/storage-provisioner"
#define NO_PROVISIONER "kubernetes.io/no-provisioner"

/* Class by the beta annotation or the field; empty: none asked for. */
struct str claim_class(const struct core_v1_persistent_volume_claim *c);
/* True when a class is named, "" included. */
bool claim_has_class(const struct core_v1_persistent_volume_claim *c);
struct str volume_class(const struct core_v1_persistent_volume *v);
/* The class binds with the first consumer; false for NULL. */
bool class_waits(const struct storage_v1_storage_class *sc);
/* The volume's claimRef names this claim (and its uid, where it has one). */
bool volume_bound_to(const struct core_v1_persistent_volume *v, const struct core_v1_persistent_volume_claim *c);
/* Filesystem and Block do not mix. */
bool volume_mode_differs(const struct core_v1_persistent_volume *v, const struct core_v1_persistent_volume_claim *c);
bool volume_modes_cover(const struct core_v1_persistent_volume *v, const struct core_v1_persistent_volume_claim *c);
/* Why a claim that asks for this volume by name cannot have it; NULL: it can. */
const char *volume_mismatch(const struct core_v1_persistent_volume *v, const struct core_v1_persistent_volume_claim *c);
/*
 * The volume that is bound to the claim already, else the smallest that fits. `fits` (NULL: the binder's view, without a node)
 * says whether the volume can be used on the node in question; it also leaves out volumes that are taken. `delay`: only the
 * scheduler chooses for this claim, so that without `fits` only volumes bound to it count.
 */
struct error *volume_find(struct arena *a, const struct core_v1_persistent_volume_claim *c, struct core_v1_persistent_volume **v, size_t n,
			  bool (*fits)(void *ctx, const struct core_v1_persistent_volume *v, bool bound), void *ctx, bool delay,
			  struct core_v1_persistent_volume **out);
/* Makes v's claimRef and annotation those of c; true when that changes v. v is changed in place. */
bool volume_set_claim(struct arena *a, struct core_v1_persistent_volume *v, const struct core_v1_persistent_volume_claim *c);
/* Name of the claim behind an ephemeral volume of a pod: "POD-VOLUME" (KEP-1698). */
struct str ephemeral_claim_name(struct arena *a, struct str pod, struct str volume);
/* That claim was made for this pod, not by somebody else under the same name. */
bool claim_made_for(const struct core_v1_persistent_volume_claim *c, const struct core_v1_pod *p);

#endif
