/* Classifier, IPClassifier, IPFilter: ME(decide) is the decision graph of their patterns. */
static void ME(push)(uint32_t port, click_packet *p) {
    (void)port;
    OUT(ME(decide)(p), p);
}
