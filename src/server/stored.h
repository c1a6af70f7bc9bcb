/* Texts that every store keeps in the same form: the versions of a row's columns, the last image of
 * a deleted row, and how a foreign key is named in a refusal. */
#ifndef SERVER_STORED_H
#define SERVER_STORED_H

#include "server/store.h"

/* {"title":[ver,at_ms,device,seq],"tags":[ver,at_ms,device,seq,{..}],..} into out[column_count];
 * entries of columns that are no longer synced are left out, an empty text changes nothing.
 * CORRUPT, NOMEM. */
godwit_status stored_meta_read(arena *a, slice text, const schema_table *t,
                               merge_meta *out) MUST_USE;
/* Appends one member of that. json_key: the quoted name and its colon. */
void stored_meta_write(bytes *b, slice json_key, const merge_meta *m);
/* The columns of a deleted row, a JSON object, into out[column_count]; an empty text changes
 * nothing. CORRUPT, NOMEM. */
godwit_status stored_image_read(arena *a, slice text, const schema_table *t, value *out) MUST_USE;
/* Appends "forms(pin_id) refers to pins(id)". */
void stored_reference_write(bytes *b, const schema_table *child, const schema_fk *fk);

#endif
