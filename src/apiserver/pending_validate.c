/* Stand-in until schema/ has generic validation. */
#include "schema/validate.h"

__attribute__((weak)) void validate_object(struct field_errors *e, const struct schema_type *t, const void *obj, const struct field_path *at)
{
}
