/* SPDX-License-Identifier: MPL-2.0
 *
 * Links the plugin in, and runs its source: it listens on a free port.
 */

#include <gst/gst.h>

GST_PLUGIN_STATIC_DECLARE (rtmp2server);

int
main (int argc, char **argv)
{
  GstElement *pipeline, *source;
  guint port = 0;

  /* No plugin file is found: the element is the one that is linked in. */
  g_setenv ("GST_PLUGIN_PATH", "", TRUE);
  gst_init (&argc, &argv);
  GST_PLUGIN_STATIC_REGISTER (rtmp2server);

  pipeline = gst_parse_launch
      ("rtmp2serversrc name=source host=127.0.0.1 port=0 ! fakesink", NULL);
  if (pipeline == NULL) {
    g_printerr ("the element was not registered\n");
    return 1;
  }
  gst_element_set_state (pipeline, GST_STATE_PLAYING);
  source = gst_bin_get_by_name (GST_BIN (pipeline), "source");
  g_object_get (source, "current-port", &port, NULL);
  gst_object_unref (source);
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pipeline);

  if (port == 0) {
    g_printerr ("the element does not listen\n");
    return 1;
  }
  return 0;
}
